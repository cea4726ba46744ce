'use strict';
// A module whose functions call each other: grow_outer -> grow_inner -> memory.grow, call_outer -> call_inner -> the
// import. Their names in the name section are wgrow_outer and so on.
const v8 = require('node:v8');
const { take } = require('./record.cjs');
v8.setFlagsFromString('--wasm-tiering-budget=2000');
if (process.versions.node >= '22') v8.setFlagsFromString('--wasm-sync-tier-up');
const module_ = new WebAssembly.Module(Buffer.from(
  'AGFzbQEAAAABBgFgAX8BfwINAQNlbnYFYWxsb2MAAAMFBAAAAAAFAwEAAQchAwNtZW0CAApncm93X291dGVyAAIKY2FsbF9vdXRl' +
  'cgAECh0EBgAgAEAACwYAIAAQAQsGACAAEAALBgAgABADCwBHBG5hbWUBQAUACWFsbG9jX2ltcAELd2dyb3dfaW5uZXICC3dncm93' +
  'X291dGVyAwt3Y2FsbF9pbm5lcgQLd2NhbGxfb3V0ZXI=', 'base64'));
const ONLY_CALL = 0;
let hot = false;
const instance = new WebAssembly.Instance(module_, { env: { alloc: function imported(id) {
  if (id === ONLY_CALL) return 0;
  if (!hot) makeHot();
  return take(id);
} } });

// The frames of wasm that called us now run code that V8 has replaced meanwhile: it is no longer listed by function, and
// the look-up of a stack's frames moves it from the list of new code into a tree.
function makeHot() {
  hot = true;
  for (let i = 0; i < 1000; i++) instance.exports.call_outer(ONLY_CALL);
  void new Error().stack;
}
module.exports = instance.exports;
