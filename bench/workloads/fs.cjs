// Streams of a file into another, ARGV[2] times 4 MiB, in the directory ARGV[3].
'use strict';
const fs = require('fs');
const path = require('path');
const { pipeline } = require('stream');

const from = path.join(process.argv[3], 'from');
const to = path.join(process.argv[3], 'to');
fs.writeFileSync(from, Buffer.alloc(4 << 20, 'some text\n'));
function copy(left) {
  if (left === 0) return;
  pipeline(fs.createReadStream(from), fs.createWriteStream(to), (error) => {
    if (error) throw error;
    fs.stat(to, () => copy(left - 1));
  });
}
copy(Number(process.argv[2]));
