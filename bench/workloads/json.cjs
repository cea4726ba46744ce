// Parse and stringify a document of some 60 KB: ARGV[2] times.
'use strict';

const rows = Array.from({ length: 400 }, (_, i) => ({
  id: i, name: `row ${i}`, tags: ['one', 'two', `t${i % 7}`], nested: { a: i / 3, b: [i, i + 1, { c: null }] },
}));
let text = JSON.stringify(rows);
for (let i = 0; i < Number(process.argv[2]); i++) {
  const value = JSON.parse(text);
  value[i % 400].id = i;
  text = JSON.stringify(value);
}
