// Buffers outside the pool, dropped at once: ARGV[2] of them. Little else happens: what each allocation costs shows.
'use strict';

let bytes = 0;
for (let i = 0; i < Number(process.argv[2]); i++) {
  bytes += Buffer.allocUnsafeSlow(100 + (i & 1023)).length;
}
if (bytes === 0) throw new Error('nothing allocated');
