// Messages to two workers and back, ARGV[2] in all, each with an ArrayBuffer that is handed over.
'use strict';
const { Worker, isMainThread, parentPort } = require('worker_threads');

if (!isMainThread) {
  parentPort.on('message', (message) => {
    parentPort.postMessage({ id: message.id, sum: message.numbers.length, buffer: message.buffer }, [message.buffer]);
  });
} else {
  let left = Number(process.argv[2]);
  for (let i = 0; i < 2; i++) {
    const worker = new Worker(__filename);
    const send = () => {
      if (left-- <= 0) return worker.terminate();
      const buffer = new ArrayBuffer(1000);
      worker.postMessage({ id: left, numbers: [1, 2, 3, left], buffer }, [buffer]);
    };
    worker.on('message', send);
    for (let j = 0; j < 8; j++) send();
  }
}
