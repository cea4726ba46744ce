import { take } from './record.cjs';
export function inModule() { return take(160); }
inModule();
await 1;
take(161);
export default class Exported { method() { return take(162); } }
new Exported().method();
export let counter = 0;
const { other } = await import('./folder%20with%20space/other%23.mjs?query=1');
other();
counter++;
