// Small hashes and MACs: ARGV[2] of each.
'use strict';
const crypto = require('crypto');

const count = Number(process.argv[2]);
const key = Buffer.alloc(32, 7);
let bytes = 0;
for (let i = 0; i < count; i++) {
  bytes += crypto.createHash('sha256').update(`message ${i}`).digest().length;
  bytes += crypto.createHmac('sha1', key).update(`message ${i}`).digest('hex').length;
  bytes += crypto.randomBytes(16).length;
}
if (bytes !== count * 88) throw new Error('wrong lengths');
