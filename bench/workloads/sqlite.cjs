// node:sqlite in memory: ARGV[2] rows inserted, read back one by one, then a few queries over all of them.
'use strict';
const { DatabaseSync } = require('node:sqlite');

const rows = Number(process.argv[2]);
const database = new DatabaseSync(':memory:');
database.exec('create table item (id integer primary key, name text, price real)');
const insert = database.prepare('insert into item values (?, ?, ?)');
const select = database.prepare('select name, price from item where id = ?');
for (let i = 0; i < rows; i++) insert.run(i, `item ${i}`, i / 7);
let sum = 0;
for (let i = 0; i < rows; i++) sum += select.get(i).price;
for (let i = 0; i < 10; i++) sum += database.prepare(`select count(*) as n from item where name like '%${i}%'`).get().n;
if (!(sum > 0)) throw new Error('nothing read');
