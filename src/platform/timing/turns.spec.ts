import { Turns } from './turns.js';

describe('Turns', () => {
  it('lets those of one name go one after the other, and others at once', async () => {
    const turns = new Turns();
    const told: string[] = [];
    let letGo: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (letGo = resolve));
    const first = turns.take('a', async () => {
      told.push('a1');
      await held;
    });
    const second = turns.take('a', () => Promise.resolve(told.push('a2')));
    await turns.take('b', () => Promise.resolve(told.push('b1')));
    expect(told).toEqual(['a1', 'b1']);
    letGo();
    await Promise.all([first, second]);
    expect(told).toEqual(['a1', 'b1', 'a2']);
  });

  it('goes on after a failure, which only its own caller is told of', async () => {
    const turns = new Turns();
    const failing = turns.take('a', () => Promise.reject(new Error('no')));
    const next = turns.take('a', () => Promise.resolve('yes'));
    await expect(failing).rejects.toThrow('no');
    expect(await next).toBe('yes');
  });
});
