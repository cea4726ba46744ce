'use strict';
const { take, mark, keep } = require('./record.cjs');
const { EventEmitter } = require('events');
const fs = require('fs'), path = require('path'), vm = require('vm'), zlib = require('zlib'), crypto = require('crypto');
const util = require('util');

// --- functions and classes
function plain() { return take(1); }
plain();
class Shape {
  method() { return take(2); }
  static make() { return take(3); }
  get area() { return take(4); }
  set area(v) { take(5); }
  #hidden() { return take(6); }
  get #secret() { return take(7); }
  static #factory() { return take(8); }
  callHidden() { return this.#hidden() + this.#secret + Shape.#factory(); }
  field = take(0);
  arrow = () => take(9);
  async later() { return take(10); }
  *each() { yield take(11); }
  async *stream() { yield take(12); }
  static { take(13); }
  static value = take(14);
  ['comp' + 'uted']() { return take(15); }
  [Symbol.iterator]() { return take(16); }
  static get kind() { return take(17); }
  'quoted name'() { return take(18); }
  42() { return take(19); }
}
const shape = new Shape();
shape.method(); Shape.make(); shape.area; shape.area = 1; shape.callHidden(); shape.arrow(); shape.later();
for (const _ of shape.each());
shape.stream().next();
shape.computed(); shape[Symbol.iterator](); Shape.kind; shape['quoted name'](); shape[42]();
class Base { constructor(id) { take(id); } }
class Derived extends Base { constructor() { super(20); this.x = 1; } }
new Derived();
class Fields { inner = take(21); }
new Fields();
new (class { constructor() { take(22); } })();
const named = function inner() { take(23); };
named();
const inferred = function () { take(24); };
inferred();
const object = {
  shorthand() { take(25); },
  arrow: () => take(26),
  get getter() { return take(27); },
  [Symbol.toPrimitive]() { take(28); return 1; },
  nested: { deep: { fn: function () { take(29); } } },
  async asyncMethod() { take(30); },
};
object.shorthand(); object.arrow(); object.getter; +object; object.nested.deep.fn(); object.asyncMethod();
const assigned = {};
assigned.one = {};
assigned.one.two = function () { take(31); };
assigned.one.two();
Shape.prototype.added = function () { take(32); };
shape.added();
function renamed() { take(33); }
Object.defineProperty(renamed, 'name', { value: 'other name' });
renamed();
Object.defineProperty({}, 'x', { get: function getterX() { return take(34); } }).x;
(() => { take(35); })();
(function () { return (function () { take(36); })(); })();
(function viaCall() { take(37); }).call({});
(function viaApply() { take(38); }).apply({}, [1]);
(function viaBind() { take(39); }).bind({}, 1)();
Reflect.apply(function viaReflect() { take(40); }, null, []);
Reflect.construct(function viaConstruct() { take(41); }, []);
new Proxy({}, { get(target, key) { return take(42); } }).anything;
function withDefault(x = take(43)) { return x; }
withDefault();
{ const { a = take(44) } = {}; }
function tag(strings) { return take(45); }
tag`x`;
function recursion(n) { return n ? recursion(n - 1) : take(46); }
recursion(25);
function thrower() { try { throw 1; } catch { take(47); } finally { take(48); } }
thrower();
function multi() {
  const value =
    [1]
      .concat(2)
      .map((x) =>
        take(49));
  return value;
}
multi();
function \u00fcnic\u00f6de_\u65e5\u672c() { take(50); }
ünicöde_日本();
class Zähler { 'größe 😀'() { take(51); } }
new Zähler()['größe 😀']();
const 日本 = 1; /* two-byte source */ take(52);

// --- callbacks of builtins
[1].map((x) => take(60));
[1].forEach(function named(x) { take(61); });
let sorted = 0;
[2, 1].sort((a, b) => { if (!sorted++) take(62); return a - b; });
[1, 2].reduce((a, b) => take(63));
JSON.parse('[1]', function reviver(key, value) { if (key === '') take(64); return value; });
JSON.stringify({ toJSON() { take(65); return 1; } });
'a'.replace(/a/, () => { take(66); return 'b'; });
new Map([[1, 2]]).forEach((v, k) => take(67));
Array.from({ length: 1 }, () => take(68));
[1].filter((x) => take(69));
[1].find((x) => take(70));
[1].some((x) => take(71));
[1].flatMap((x) => take(72));
new Set([1]).forEach((x) => take(73));
Object.fromEntries([[1, 2]].map(([k, v]) => [k, take(74)]));
new Uint8Array(1).map((x) => take(75));
Array.prototype.concat.call([], { get [Symbol.isConcatSpreadable]() { take(76); return false; } });
`${{ toString() { take(77); return ''; } }}`;
[...{ *[Symbol.iterator]() { yield take(78); } }];

// --- code made at run time
globalThis.take = take;
eval('take(80)');
eval('(function inEval() { take(81); })()');
eval('var indirect = () => take(82); indirect()');
(0, eval)('take(83)');
new Function('take(84)')();
new Function('a', 'b', 'return (function inside() { return take(85); })()')();
vm.runInThisContext('function inVm() { take(86); }\n\n  inVm()', { filename: 'my-vm-file.js', lineOffset: 100, columnOffset: 7 });
vm.runInThisContext('take(87)', { filename: 'first-line.js', columnOffset: 30 });
vm.runInNewContext('function other() { take(88); } other()', { take }, { filename: path.join(__dirname, 'vm-new.js') });
vm.compileFunction('take(89)', [], { filename: 'compiled-function.js', lineOffset: 3 })();
new vm.Script('\r\n\u2028take(90)', { filename: 'line-ends.js' }).runInThisContext();

// --- node's own callers
const emitter = new EventEmitter();
emitter.on('event', function listener() { take(100); });
emitter.once('event', () => take(101));
emitter.emit('event');
util.inspect({ [util.inspect.custom]() { take(102); return ''; } });
process.nextTick(function tick() { take(103); });
queueMicrotask(() => take(104));
setTimeout(function onTimer() { take(105); }, 1);
setImmediate(() => take(106));
const interval = setInterval(() => { clearInterval(interval); take(107); }, 1);
Promise.resolve().then(function thenCallback() { take(108); });
Promise.reject(new Error('x')).catch(() => take(109)).finally(() => take(110));
new Promise((resolve) => { take(111); resolve(); });
async function first() { await null; take(112); return 1; }
async function second() { await first(); take(113); }
second();
(async () => { for await (const x of shape.stream.call({ __proto__: shape })); })();
async function* generate() { await 1; yield take(114); }
(async () => { for await (const _ of generate()); })();
fs.stat(__filename, function statted() { take(115); });
fs.promises.stat(__filename).then(() => take(116));
process.on('exit', () => take(117));

// --- allocations that node's C++ makes
setTimeout(() => {
  function deflated() { return zlib.gzipSync(Buffer.alloc(64), { chunkSize: mark(130) }); }
  keep(deflated());
  function random() { return crypto.randomBytes(mark(131)); }
  keep(random());
  function derived() { return crypto.pbkdf2Sync('p', 's', 1, mark(132), 'sha256'); }
  keep(derived());
  function buffer() { return Buffer.alloc(mark(133)); }
  keep(buffer());
  function unsafe() { return Buffer.allocUnsafeSlow(mark(134)); }
  keep(unsafe());
  const file = fs.openSync(process.execPath, 'r');
  function readSync() { const b = Buffer.alloc(mark(135)); fs.readSync(file, b, 0, 10, 0); return b; }
  keep(readSync());
}, 5);
setTimeout(() => {
  const stream = fs.createReadStream(process.execPath, { highWaterMark: 1000, end: 500 });
  stream.on('data', function onData() { take(136); stream.destroy(); });
}, 7);

// --- wasm
const wasm = require('./wasm.cjs');
function callWasm() { return wasm.call_outer(140); }
callWasm();

// --- other files
const { Worker } = require('worker_threads');
setTimeout(() => new Worker(path.join(__dirname, 'worker.cjs')).on('message', keep), 20);
import('./module.mjs');
