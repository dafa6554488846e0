// stratos-sdk 2.0.0 as its package has it, told what to do. Its folder, with its dependencies installed, is the first argument.
// Every line of standard input is one request, every line of standard output its answer:
//   {"init": ENVIRONMENT}                                  Sdk.init, then what it finds out of the node, as its own example does
//   {"wallet": NAME, "words": …, "index": 0}               a wallet of that name → its key pair
//   {"call": "sds.remoteFileSystem.….shareFile", "args": […]}
//   {"who": NAME, "transact": "sds.transactions.getSdsPrepayTx", "args": […]}     make messages, simulate, sign and send as NAME
// Arguments may hold {"$wallet": NAME}: its key pair. Answers have big numbers as text; what the SDK throws is {"error": text}.
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { createInterface } from "node:readline";

const folder = resolve(process.argv[2]);
const sdk = createRequire(resolve(folder, "package.json"))(folder);
const answerLine = console.log.bind(console);
// The SDK prints whole files.
for (const name of ["log", "dir", "info", "debug", "warn"]) console[name] = () => {};

const wallets = new Map();
const found = (path) => path.split(".").reduce((at, name) => at[name], sdk);

async function be({ words, index }) {
  await sdk.chain.cosmos.cosmosService.create(words, index);
}

async function answer(request) {
  if (request.init) {
    sdk.Sdk.init(request.init);
    const { resolvedChainID, resolvedChainVersion, isNewProtocol } = await sdk.network.networkApi.getChainAndProtocolDetails();
    sdk.Sdk.init({ ...request.init, chainId: resolvedChainID, nodeProtocolVersion: resolvedChainVersion, isNewProtocol });
    return { chainId: resolvedChainID, version: resolvedChainVersion };
  }
  if (request.wallet) {
    const pair = await sdk.crypto.hdVault.wallet.deriveKeyPairFromMnemonic(request.words, request.index);
    wallets.set(request.wallet, { words: request.words, index: request.index, pair });
    return pair;
  }
  if (request.transact) {
    const { pair, ...who } = wallets.get(request.who);
    await be(who);
    const messages = await found(request.transact)(pair.address, ...request.args);
    const signed = await sdk.chain.transactions.sign(pair.address, messages);
    return sdk.chain.transactions.broadcast(signed);
  }
  return found(request.call)(...request.args);
}

const read = (_key, value) => (value?.$wallet ? wallets.get(value.$wallet).pair : value);
const write = (_key, value) => (typeof value === "bigint" ? value.toString() : value);
for await (const line of createInterface({ input: process.stdin })) {
  const told = await answer(JSON.parse(line, read)).catch((error) => ({ error: String(error?.message ?? error) }));
  answerLine(JSON.stringify(told ?? null, write));
}
process.exit(0);
