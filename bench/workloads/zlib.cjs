// gzip and back, on the main thread and in libuv's pool: ARGV[2] texts of 16 KiB.
'use strict';
const zlib = require('zlib');

const texts = Number(process.argv[2]);
const text = Buffer.from('The quick brown fox jumps over the lazy dog. '.repeat(364));

function later(left) {
  if (left <= 0) return;
  zlib.gzip(text, (error, packed) => {
    if (error) throw error;
    zlib.gunzip(packed, () => later(left - 4));
  });
}

for (let i = 0; i < texts / 2; i++) {
  if (zlib.gunzipSync(zlib.gzipSync(text)).length !== text.length) throw new Error('not the same');
}
for (let i = 0; i < 4; i++) later(texts / 2);
