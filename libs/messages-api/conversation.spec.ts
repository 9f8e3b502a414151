import fc from 'fast-check';
import { standingOf } from './conversation.js';
import type { ContentBlock, RequestMessage } from './request-body.js';

const REMINDER = '<system-reminder>\nMind the gap.\n</system-reminder>\n';
const INTERRUPTED = '[Request interrupted by user]\n';

const text = (value: string): ContentBlock => ({ type: 'text', text: value });
const result = (content: unknown): ContentBlock => ({ type: 'tool_result', tool_use_id: 'toolu_1', content });
const user = (...content: ContentBlock[]): RequestMessage => ({ role: 'user', content });
const assistant = (value: string): RequestMessage => ({ role: 'assistant', content: [text(value)] });
const environment: RequestMessage = { role: 'system', content: '# Environment' };

describe('the prompt of a conversation', () => {
  it.each<[string, RequestMessage[]]>([
    ['a plain string', [{ role: 'user', content: 'go' }]],
    ['a block', [user(text('go'))]],
    ['after reminders, before the environment', [user(text(REMINDER), text('go')), environment]],
    ['before a reminder', [user(text('go'), text(REMINDER))]],
    ['in a later turn', [user(text('old')), assistant('yes'), user(text('go'))]],
    ['after a reminder in a message of its own', [{ role: 'user', content: REMINDER }, user(text('go'))]],
    ['before a message of reminders only', [user(text('go')), { role: 'user', content: REMINDER }]],
    ['after a prompt that failed', [user(text('old\n'), text('go'))]],
    ['after a prompt that was interrupted', [user(text('old\n'), text(INTERRUPTED), text('go'))]],
    ['after a tool whose turn failed', [user(text('old')), assistant('Read'), user(result('x'), text('go'))]],
    ['before the note to go on with it', [user(text('go\n'), text('Continue from where you left off.'))]],
    ['before its tool results', [user(text(REMINDER), text('go')), assistant('Read'), user(result('x'))]],
    [
      'before a tool that was loaded',
      [user(text('go')), assistant('x'), user(result('x'), text('Tool loaded.'))],
    ],
    ['beside an image', [user({ type: 'image', source: {} }, text('go'))]],
    [
      'after a command of the CLI',
      [
        user(
          text('<local-command-caveat>Mind.</local-command-caveat>\n'),
          text('<command-name>/clear</command-name>\n<command-args></command-args>\n'),
          text('<local-command-stdout></local-command-stdout>\n'),
          text('go'),
        ),
      ],
    ],
  ])('is found %s', (_, messages) => {
    expect(standingOf(messages).prompt).toBe('go');
  });

  it('of several blocks is all of them', () => {
    expect(standingOf([user(text(REMINDER), text('one'), text('two'))]).prompt).toBe('one\ntwo');
  });

  it.each([
    '<system-reminder>not mine',
    `${REMINDER} and more`,
    `${REMINDER}${REMINDER}`,
    '</system-reminder>',
  ])('may speak of reminders: %j', (prompt) => {
    expect(standingOf([user(text(REMINDER), text(prompt)), environment]).prompt).toBe(prompt);
  });

  it('may be nothing but a reminder, if nothing else was typed', () => {
    const prompt = '<system-reminder>typed</system-reminder>';
    expect(standingOf([user(text(REMINDER), text(prompt)), environment]).prompt).toBe(prompt);
  });

  it('is null where nobody typed anything', () => {
    expect(standingOf([environment])).toEqual({ prompt: null, turn: 0, lastToolResults: [] });
    expect(standingOf([user({ type: 'image' })]).prompt).toBeNull();
  });

  it('is found unchanged among the blocks of the CLI, whatever it says', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.boolean(), (prompt, isLater) => {
        const before = isLater ? [user(text(REMINDER), text('old')), environment, assistant('yes')] : [];
        const last = isLater ? [user(text(prompt))] : [user(text(REMINDER), text(prompt)), environment];
        expect(standingOf([...before, ...last])).toEqual({ prompt, turn: 0, lastToolResults: [] });
      }),
    );
  });
});

describe('the turn', () => {
  it('counts the messages of the assistant since the prompt', () => {
    const messages = [user(text('old')), assistant('yes'), user(text('go'))];
    expect(standingOf(messages).turn).toBe(0);
    messages.push(assistant('Read'), user(result('one')));
    expect(standingOf(messages).turn).toBe(1);
    messages.push(assistant('Write'), user(result('two')));
    expect(standingOf(messages).turn).toBe(2);
  });

  it('goes on after the note to go on with it', () => {
    const messages = [user(text('go')), assistant('Read')];
    messages.push(user(result('one'), text('Continue from where you left off.')));
    expect(standingOf(messages)).toMatchObject({ prompt: 'go', turn: 1, lastToolResults: [{ text: 'one' }] });
  });

  it('knows the results of the last tools only', () => {
    const failed = { type: 'tool_result', tool_use_id: 'toolu_2', content: 'no', is_error: true };
    const blocks = [{ type: 'image' }, text('a'), text('b')];
    const messages = [user(text('go')), assistant('Read'), user(result('old')), assistant('Two')];
    messages.push(user(result(blocks), failed, result(undefined)));
    expect(standingOf(messages).lastToolResults).toEqual([
      { toolUseId: 'toolu_1', text: 'a\nb', isError: false },
      { toolUseId: 'toolu_2', text: 'no', isError: true },
      { toolUseId: 'toolu_1', text: '', isError: false },
    ]);
    messages.push(assistant('Wait.'), user(text(REMINDER)));
    expect(standingOf(messages)).toMatchObject({ turn: 3, lastToolResults: [{}, { text: 'no' }, {}] });
  });
});
