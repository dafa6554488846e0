// CosmJS as an app developer uses it, on the localnet described by localnet.json (first argument), told what to do.
// Every line of standard input is one request, every line of standard output its answer:
//   {"who": "carol", "signer": "direct" | "amino", "call": METHOD of SigningStargateClient, "args": […]}
//   {"query": "staking.delegation", "args": […]}          an extension of QueryClient
// Arguments may hold {"$bigint": "7"} and {"$any": {"typeUrl": …, "value": …}}. Answers have big numbers as text and bytes as base64; what CosmJS
// throws is {"error": text, "code": the chain's, where it is the chain's}.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { Secp256k1HdWallet } from "@cosmjs/amino";
import { stringToPath } from "@cosmjs/crypto";
import { toBase64 } from "@cosmjs/encoding";
import { DirectSecp256k1HdWallet, Registry } from "@cosmjs/proto-signing";
import {
  defaultRegistryTypes, GasPrice, QueryClient, SigningStargateClient, setupAuthzExtension, setupBankExtension, setupDistributionExtension,
  setupFeegrantExtension, setupGovExtension, setupSlashingExtension, setupStakingExtension,
} from "@cosmjs/stargate";
import { Comet38Client } from "@cosmjs/tendermint-rpc";
import { GenericAuthorization } from "cosmjs-types/cosmos/authz/v1beta1/authz";
import { BasicAllowance } from "cosmjs-types/cosmos/feegrant/v1beta1/feegrant";
import { TextProposal } from "cosmjs-types/cosmos/gov/v1beta1/gov";

const net = JSON.parse(readFileSync(process.argv[2], "utf8"));
const registry = new Registry([
  ...defaultRegistryTypes,
  ["/cosmos.authz.v1beta1.GenericAuthorization", GenericAuthorization],
  ["/cosmos.feegrant.v1beta1.BasicAllowance", BasicAllowance],
  ["/cosmos.gov.v1beta1.TextProposal", TextProposal],
]);
const query = QueryClient.withExtensions(
  await Comet38Client.connect(net.rpc), setupAuthzExtension, setupBankExtension, setupDistributionExtension, setupFeegrantExtension,
  setupGovExtension, setupSlashingExtension, setupStakingExtension,
);
const wallets = { direct: DirectSecp256k1HdWallet, amino: Secp256k1HdWallet };
const clients = new Map();

async function client(who, signer) {
  const key = `${who} ${signer}`;
  if (!clients.has(key)) {
    const account = net.accounts.find((one) => one.name === who);
    const wallet = await wallets[signer].fromMnemonic(account.mnemonic, { prefix: "st", hdPaths: [stringToPath(account.hd_path)] });
    const options = { registry, gasPrice: GasPrice.fromString("1000000000wei"), broadcastPollIntervalMs: 200 };
    clients.set(key, await SigningStargateClient.connectWithSigner(net.rpc, wallet, options));
  }
  return clients.get(key);
}

async function answer(request) {
  if (request.query) {
    const [extension, method] = request.query.split(".");
    return query[extension][method](...request.args);
  }
  return (await client(request.who, request.signer))[request.call](...request.args);
}

const read = (_key, value) => (value?.$bigint ? BigInt(value.$bigint) : value?.$any ? registry.encodeAsAny(value.$any) : value);
const write = (_key, value) => (typeof value === "bigint" ? value.toString() : value instanceof Uint8Array ? toBase64(value) : value);
for await (const line of createInterface({ input: process.stdin })) {
  const told = await answer(JSON.parse(line, read)).catch((error) => ({ error: String(error), code: error.code, codespace: error.codespace }));
  console.log(JSON.stringify(told, write));
}
process.exit(0);
