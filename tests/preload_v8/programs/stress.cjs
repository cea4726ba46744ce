'use strict';
const { Worker, isMainThread, workerData } = require('worker_threads');
let keep = [];
function make(i) { const o = { a: i, b: [i, i + 1], f: () => i + keep.length, s: 'x'.repeat(i % 50) + i, u: new Uint8Array(9 + i % 40) }; if (i % 7 === 0) keep.push(o); if (keep.length > 5000) keep = keep.slice(2500); return o.f(); }
class Runner { run(n) { let s = 0; for (let i = 0; i < n; i++) s += make(i); return s; } }
function deep(d, n) { return d ? deep(d - 1, n) : new Runner().run(n); }
let s = 0;
const source = (k) => new Function('x', 'function q' + k + '(y){ return {y:[y,x], z:new Map([[y,x]]), b:Buffer.alloc(5000)}; } let r=0; for(let i=0;i<50;i++) r+=q' + k + '(i).y.length; return r;');
const rounds = isMainThread ? +process.env.R || 6 : 3;
for (let r = 0; r < rounds; r++) { s += deep(20, 10000); for (let k = 0; k < 20; k++) s += source(r * 100 + k)(3); JSON.parse(JSON.stringify(keep.slice(0, 500).map((o) => ({ a: o.a, s: o.s })))); keep.sort((x, y) => x.a - y.a); s += keep.map((o) => o.b.reduce((p, q) => p + q, Buffer.alloc(100).length)).length; }
if (isMainThread) for (let i = 0; i < 2; i++) new Worker(__filename);
