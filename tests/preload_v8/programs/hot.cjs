'use strict';
// Every shape allocates in every round, so that the path with the allocation is what gets optimized; LOOPS decides how
// far the tiers climb.
const { take } = require('./record.cjs');
const LOOPS = +process.env.LOOPS || 20000;
let sum = 0;
const cases = [];
const define = (id, run) => cases.push([id, run]);

function inner(id) { return take(id); }
function middle(id) { const r = inner(id);
  return r; }
define(201, function chain(id) { let x = 0; for (let k = 0; k < 4; k++) x += k; return middle(id) + x; });
class Animal { constructor(v) { this.v = v; } speak(id) { return take(id) + this.v; } get loud() { return take(this.id); } }
class Dog extends Animal { speak(id) { return super.speak(id) + 1; } }
const animals = [new Animal(1), new Dog(2)];
let turn = 0;
define(202, function polymorphic(id) { return animals[id ? 1 : turn++ & 1].speak(id); });
define(203, function getter(id) { animals[0].id = id; return animals[0].loud; });
const three = [1, 2, 3];
define(204, function mapped(id) { return three.map((x) => (x === 3 ? take(id) : x)).length; });
define(205, function forEached(id) { let r = 0; three.forEach(function each(x) { r += take(x === 2 ? id : 0); }); return r; });
define(206, function reduced(id) { return three.reduce((a, x) => a + take(x === 3 ? id : 0), 0); });
class Holder { constructor(id) { this.b = take(id); } }
define(207, function constructed(id) { return new Holder(id).b; });
class SubHolder extends Holder { constructor(id) { super(id); this.z = 1; } }
define(208, function superConstructed(id) { return new SubHolder(id).b; });
define(209, function closed(id) { const f = () => take(id); return f(); });
define(210, function applied(id) { return inner.apply(null, [id]); });
define(211, function called(id) { return inner.call(null, id); });
define(212, function spread(id) { const q = [id]; return inner(...q); });
define(213, function rested(...q) { return inner(q[0]); });
define(214, function tried(id) { try { return take(id); } catch { return 0; } finally { sum++; } });
function* generator(id) { yield take(id); }
define(215, function generated(id) { let r = 0; for (const b of generator(id)) r += b; return r; });
function deep(d, id) { return d ? deep(d - 1, id) + 1 : take(id); }
define(216, function recursive(id) { return deep(6, id); });
const bound = inner.bind(null);
define(217, function boundCall(id) { return bound(id); });
const convertible = { id: 0, valueOf() { return take(this.id); } };
define(218, function converted(id) { convertible.id = id; return +convertible; });
define(219, function reflected(id) { return Reflect.apply(inner, null, [id]); });
const target = { id: 0 };
const proxy = new Proxy(target, { get(t) { return take(t.id); } });
define(220, function proxied(id) { target.id = id; return proxy.any; });
define(221, function sorting(id) { [2, 1].sort((a, b) => { sum += take(id); return a - b; }); return 1; });
define(222, function replacing(id) { 'a'.replace(/a/, () => { sum += take(id); return 'b'; }); return 1; });
define(223, function looping(id) { let r = 0; for (let i = 0; i < 50; i++) r += take(i === 49 ? id : 0); return r; });
async function asynchronous(id) { return take(id); }
define(224, function asyncCall(id) { asynchronous(id); return 1; });
define(225, function fromArray(id) { return Array.from(three, (x) => take(x === 3 ? id : 0)).length; });
define(226, function nestedCallbacks(id) {
  return three.filter((x) => three.some((y) => take(x === 3 && y === 3 ? id : 0) < 0)).length; });
class Private { #run(id) { return take(id); } run(id) { return this.#run(id); } static go(id) { return take(id); } }
const secret = new Private();
define(227, function privateMethod(id) { return secret.run(id); });
define(228, function staticMethod(id) { return Private.go(id); });
const computed = { ['key' + 1](id) { return take(id); } };
define(229, function computedKey(id) { return computed.key1(id); });
define(230, function everyFind(id) { return three.every((x) => three.find((y) => take(x === 3 && y === 3 ? id : 0) < 0) === undefined) ? 1 : 0; });
const factories = [1, 2, 3].map((n) => (id) => take(id) + n);
define(231, function sameCodeManyClosures(id) { return factories[turn++ % 3](id); });
define(232, function switched(id) { switch (id & 1) { case 0: return take(id); default: return take(id); } });
define(233, function optional(id) { return secret?.run?.(id) ?? 0; });
const wasm = require('./wasm.cjs');
define(234, function throughWasm(id) { return wasm.call_outer(id); });

function drive(run) { let r = 0; for (let i = 0; i < LOOPS; i++) r += run(0); return r; }
for (const [, run] of cases) sum += drive(run);
setTimeout(function measured() {  // concurrent compilations have landed
  for (const [id, run] of cases) { sum += drive(run); run(id); }
  (function replacedOnStack() { let r = 0; for (let i = 0; i < 200000; i++) r += take(i === 199999 ? 260 : 0); return r; })();
  // optimized, then deoptimized before and while it is on the stack
  function eager(x, id) { const y = x + x; sum += take(id); return y; }
  for (let i = 0; i < LOOPS; i++) eager(i, 0);
  eager('a', 261);
  function Thing() { this.k = 1; }
  Thing.prototype.get = function () { return 1; };
  function breaker(id) { if (id) { Thing.prototype.get = function () { return 2; }; } return take(id); }
  function lazy(o, id) { const a = o.get(); const r = breaker(id); return a + r + o.get(); }
  const thing = new Thing();
  for (let i = 0; i < LOOPS; i++) lazy(thing, 0);
  lazy(thing, 262);
}, 50);
