// Resizes an image ARGV[2] times by the sharp of the directory ARGV[3].
'use strict';
const path = require('path');
const sharp = require(require.resolve('sharp', { paths: [path.resolve(process.argv[3])] }));

const noise = Buffer.alloc(1200 * 800 * 3);
for (let i = 0; i < noise.length; i++) noise[i] = (i * 2654435761) >>> 24;

(async () => {
  for (let i = 0; i < Number(process.argv[2]); i++) {
    await sharp(noise, { raw: { width: 1200, height: 800, channels: 3 } }).resize(300 + (i % 50), 200).jpeg().toBuffer();
  }
})();
