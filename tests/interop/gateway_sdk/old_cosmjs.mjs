// CosmJS 0.31.1, which stratos-sdk 2.0.0 is built on, against one RPC: sends coins as that SDK does, and asks for what 0.38 answers in another form.
//
//   node old_cosmjs.mjs RPC WORDS HD-PATH RECEIVER      one line of JSON: what each call answered; what CosmJS throws is {"error": text}
import { stringToPath } from "@cosmjs/crypto";
import { DirectSecp256k1HdWallet } from "@cosmjs/proto-signing";
import { GasPrice, SigningStargateClient } from "@cosmjs/stargate";
import { HttpBatchClient, HttpClient, Tendermint37Client } from "@cosmjs/tendermint-rpc";

const [rpc, words, path, receiver] = process.argv.slice(2);
const wallet = await DirectSecp256k1HdWallet.fromMnemonic(words, { prefix: "st", hdPaths: [stringToPath(path)] });
const [{ address }] = await wallet.getAccounts();
const told = async (ask) => ask().catch((error) => ({ error: String(error) }));
const out = {};

// It chooses how to read the node by the version in its status, as the SDK does.
const client = await SigningStargateClient.connectWithSigner(rpc, wallet, { gasPrice: GasPrice.fromString("1000000000wei"), broadcastPollIntervalMs: 200 });
out.reads = client.getTmClient().constructor.name;
out.sent = await told(async () => {
  const { code, height, events } = await client.sendTokens(address, receiver, [{ denom: "wei", amount: "1234" }], "auto", "from an old client");
  return { code, height, events };
});
out.balance = await told(async () => (await client.getBalance(receiver, "wei")).amount);

const reader = await Tendermint37Client.connect(rpc);
out.results = await told(async () => {
  const { beginBlockEvents, endBlockEvents, results } = await reader.blockResults(out.sent.height ?? 1);
  const names = (events) => events.map((one) => one.type);
  return { begin: names(beginBlockEvents), end: names(endBlockEvents), txs: results.length };
});
out.committed = await told(async () => {
  const { checkTx, deliverTx } = await reader.broadcastTxCommit({ tx: Uint8Array.of(1, 2, 3) });
  return { check: checkTx.code, hasDelivery: deliverTx !== undefined };
});
const batched = await Tendermint37Client.create(new HttpBatchClient(rpc));
out.batched = await told(async () => {
  const [status, block] = await Promise.all([batched.status(), batched.block(1)]);
  return { version: status.nodeInfo.version, height: block.block.header.height };
});
out.missing = await told(async () => new HttpClient(rpc).execute({ jsonrpc: "2.0", id: 7, method: "no_such_method", params: {} }));
console.log(JSON.stringify(out, (_key, value) => (typeof value === "bigint" ? value.toString() : value)));
process.exit(0);
