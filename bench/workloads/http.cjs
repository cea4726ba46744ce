// A keep-alive server with JSON bodies that visits itself: ARGV[2] requests.
'use strict';
const http = require('http');
const { serve } = require('./visitors.cjs');

serve(Number(process.argv[2]), http, {});
