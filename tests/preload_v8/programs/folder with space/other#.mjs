import { take } from '../record.cjs';
export const other = () => take(170);
const text = 'é'; // Latin-1 source
export const after = text + take(171);
