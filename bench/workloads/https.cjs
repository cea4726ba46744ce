// The same server over TLS: ARGV[2] requests, key and certificate in ARGV[3] and ARGV[4].
'use strict';
const fs = require('fs');
const https = require('https');
const { serve } = require('./visitors.cjs');

const [requests, key, certificate] = process.argv.slice(2);
serve(Number(requests), https, { key: fs.readFileSync(key), cert: fs.readFileSync(certificate) });
