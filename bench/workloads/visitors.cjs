// A server and its visitors in one process: each visit posts a JSON body and reads a JSON answer.
'use strict';

const AT_ONCE = 16;

function readJson(stream, done) {
  let text = '';
  stream.setEncoding('utf8');
  stream.on('data', (chunk) => { text += chunk; });
  stream.on('end', () => done(JSON.parse(text)));
}

function answer(request, response) {
  readJson(request, (order) => {
    const lines = order.items.map((item) => ({ ...item, total: item.price * item.count }));
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ id: order.id, lines, sum: lines.reduce((sum, line) => sum + line.total, 0) }));
  });
}

function visit(protocol, options, id, done) {
  const request = protocol.request(options, (response) => readJson(response, done));
  const items = Array.from({ length: 10 }, (_, i) => ({ name: `item ${i}`, price: i * 7, count: id % 5 }));
  request.end(JSON.stringify({ id, items }));
}

exports.serve = (requests, protocol, tls) => {
  const agent = new protocol.Agent({ keepAlive: true, maxSockets: AT_ONCE });
  const server = protocol.createServer(tls, answer);
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    const options = {
      agent, port, host: '127.0.0.1', method: 'POST', rejectUnauthorized: false,
      headers: { 'content-type': 'application/json' },
    };
    let begun = 0;
    let running = 0;
    const next = () => {
      if (begun === requests) {
        if (running === 0) { agent.destroy(); server.close(); }
        return;
      }
      begun++;
      running++;
      visit(protocol, options, begun, () => { running--; next(); });
    };
    for (let i = 0; i < AT_ONCE; i++) next();
  });
};
