'use strict';
// Closures of one literal under several names, and code that names its own file. LOOPS decides the tier; the first of
// two closures runs LOOPS times before the second one is asked.
const { take } = require('./record.cjs');
const LOOPS = +process.env.LOOPS || 1;
function twice(one, other, id) {
  for (let i = 0; i < LOOPS; i++) one(0);
  other(id);
}

const method = (key) => ({ [key](id) { return take(id); } })[key];
twice(method('firstMethod'), method('secondMethod'), 301);
const arrow = (key) => ({ [key]: (id) => take(id) })[key];
twice(arrow('firstArrow'), arrow('secondArrow'), 302);
const classOf = (key) => class { [key](id) { return take(id); } };
twice((id) => new (classOf('firstClass'))().firstClass(id), (id) => new (classOf('secondClass'))().secondClass(id), 303);
const getter = (key) => ({ get [key]() { return take(getter.id); } });
twice((id) => { getter.id = id; return getter('firstGet').firstGet; },
  (id) => { getter.id = id; return getter('secondGet').secondGet; }, 304);

function wrap(name) {
  const wrapper = function (id) { return take(id); };
  if (name !== undefined) Object.defineProperty(wrapper, 'name', { value: name });
  return wrapper;
}
twice(wrap(), wrap('given'), 305);
twice(wrap('given'), wrap(), 306);
twice(wrap('given'), wrap(''), 307);
const late = wrap();
twice(late, (id) => { Object.defineProperty(late, 'name', { value: 'late' }); late(id); }, 308);
const crowded = wrap();
for (let i = 0; i < 1500; i++) crowded[`property${i}`] = i;
delete crowded.property7;
Object.defineProperty(crowded, 'name', { value: 'crowded' });
twice(wrap(), crowded, 309);
// Names without end are not kept, but what was there before stays right.
for (let i = 0; i < 5000; i++) wrap(`request${i}`)(0);
twice(method('firstMethod'), method('secondMethod'), 310);

globalThis.takeGlobally = take;
eval('(function inEval() { takeGlobally(311); })()\n//# sourceURL=named-by-itself.js');
(0, eval)('\n  takeGlobally(312)\n//# sourceURL=file:///folder%20of/evaluated.js');
