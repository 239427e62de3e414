// The local cache of node-redis by our port: a suite of our own. Run by the recipe ``node-redis``, beside its package.
// CONFORMANCE_PORT is the port of the server under test.
import assert from 'node:assert';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient } from 'redis';

const url = `redis://127.0.0.1:${process.env.CONFORMANCE_PORT}`;
const clientSideCache = { ttl: 0, maxEntries: 0, evictPolicy: 'LRU' };
let client, other;

const soon = async (condition) => {
  for (let left = 500; !(await condition()); left--) {
    assert.ok(left > 0, `within 5 s not so: ${condition}`);
    await sleep(10);
  }
};

before(async () => {
  client = createClient({ url, RESP: 3, clientSideCache });
  other = createClient({ url });
  await client.connect();
  await other.connect();
  await other.flushAll();
});

after(() => {
  client.destroy();
  other.destroy();
});

test('a read is answered by the local cache', async () => {
  const hits = async () => Number(/keyspace_hits:(\d+)/.exec(await other.info('stats'))[1]);
  await other.set('once', '1');
  await client.get('once');
  const counted = await hits();
  for (let number = 0; number < 50; number++) assert.equal(await client.get('once'), '1');
  assert.equal(await hits(), counted);
});

test('what another client has written is seen when that is answered', async () => {
  for (let number = 0; number < 200; number++) {
    await client.get('seen');
    await other.set('seen', `${number}`);
    await soon(async () => (await client.get('seen')) === `${number}`);
  }
});

test('what a client has written itself is seen at once', async () => {
  for (let number = 0; number < 200; number++) {
    await client.set('own', `${number}`);
    assert.equal(await client.get('own'), `${number}`);
  }
});

test('fields, flushes and expiries are seen', async () => {
  await client.hSet('h', 'f', '1');
  assert.equal(await client.hGet('h', 'f'), '1');
  await other.hSet('h', 'f', '2');
  await soon(async () => (await client.hGet('h', 'f')) === '2');
  await other.set('short', '1', { PX: 200 });
  await client.get('short');
  await soon(async () => (await client.get('short')) === null);
  await other.flushAll();
  await soon(async () => (await client.hGet('h', 'f')) === null);
});
