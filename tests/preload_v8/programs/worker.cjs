'use strict';
const { take } = require('./record.cjs');
function inWorker() { return take(150); }
inWorker();
function warm(id) { return take(id); }
function hot(id) { return warm(id); }
for (let i = 0; i < 20000; i++) hot(0);
hot(151);
setTimeout(function later() { take(152); }, 1);
