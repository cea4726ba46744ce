'use strict';
// take(id): an allocation that the harness prints, of a size that names the case; in the truth run (TRUTH=file) the
// CallSites of the same place instead. mark(id): the truth for an allocation that something else on this line makes.
const fs = require('fs');
const { isMainThread, parentPort } = require('worker_threads');
const truth = process.env.TRUTH ? fs.openSync(process.env.TRUTH, 'a') : -1;
const BASE = 1000000;
const kept = [];
Error.stackTraceLimit = 100;

function capture(id, kind, top) {
  const prepare = Error.prepareStackTrace;
  Error.prepareStackTrace = (_, sites) => sites.map((site) => ({
    name: site.getFunctionName(), file: site.getFileName() ?? site.getScriptNameOrSourceURL(),
    line: site.getLineNumber(), column: site.getColumnNumber(),
    async: site.isAsync(), eval: site.isEval(), origin: site.getEvalOrigin(),
  }));
  const holder = {};
  Error.captureStackTrace(holder, top);
  const frames = holder.stack;
  Error.prepareStackTrace = prepare;
  fs.writeSync(truth, JSON.stringify({ id, kind, frames }) + '\n');
}
function take(id) {
  if (truth >= 0) return id ? (capture(id, 'take', take), 1) : 1;
  const block = new ArrayBuffer(id ? BASE + id : 16);
  if (id) keep(block);
  return block.byteLength > 0 ? 1 : 0;
}
// Until the end, so that a report at the end has it: a worker's blocks go to the main thread.
function keep(block) {
  if (isMainThread) return kept.push(block);
  return parentPort.postMessage(block, [block]);
}
function mark(id) { if (truth >= 0) capture(id, 'mark', mark); return BASE + id; }
module.exports = { take, mark, keep, BASE };
