// CosmJS as an app developer uses it, against the node described by devnet.json (first argument).
// Prints one JSON object: what each call answered. The Python test beside it judges the answers.
import { readFileSync } from "node:fs";
import { createMultisigThresholdPubkey, Secp256k1HdWallet } from "@cosmjs/amino";
import { stringToPath } from "@cosmjs/crypto";
import { DirectSecp256k1HdWallet } from "@cosmjs/proto-signing";
import { GasPrice, makeMultisignedTxBytes, SigningStargateClient, StargateClient } from "@cosmjs/stargate";
import { Comet38Client } from "@cosmjs/tendermint-rpc";
import { toHex, fromBase64 } from "@cosmjs/encoding";
import { pubkeyToAddress } from "@cosmjs/amino";
import { TxRaw } from "cosmjs-types/cosmos/tx/v1beta1/tx";

const net = JSON.parse(readFileSync(process.argv[2], "utf8"));
const plain = net.accounts.filter((a) => a.key_type === "secp256k1");
const [alice, bob] = plain;
const options = (a) => ({ prefix: "st", hdPaths: [stringToPath(a.hd_path)] });
const gasPrice = GasPrice.fromString("1000000000wei");
const fee = (gas) => ({ amount: [{ denom: "wei", amount: String(BigInt(gas) * 1000000000n) }], gas: String(gas) });
const out = {};

const reader = await StargateClient.connect(net.rpc);
out.chainId = await reader.getChainId();
out.height = await reader.getHeight();
out.aliceBefore = await reader.getBalance(alice.address, "wei");
out.account = await reader.getAccount(alice.address);
out.sequence = await reader.getSequence(alice.address);
out.missingAccount = await reader.getAccount("st1pyysjzgfpyysjzgfpyysjzgfpyysjzgfpkqa0y").catch((e) => String(e));

// DIRECT, with simulated gas
const direct = await DirectSecp256k1HdWallet.fromMnemonic(alice.mnemonic, options(alice));
const [directAccount] = await direct.getAccounts();
out.directAddress = directAccount.address;
const signing = await SigningStargateClient.connectWithSigner(net.rpc, direct, { gasPrice });
const message = { typeUrl: "/cosmos.bank.v1beta1.MsgSend", value: { fromAddress: alice.address, toAddress: bob.address, amount: [{ denom: "wei", amount: "1234" }] } };
out.simulated = await signing.simulate(alice.address, [message], "simulated");
const sent = await signing.sendTokens(alice.address, bob.address, [{ denom: "wei", amount: "1234" }], "auto", "direct send");
out.direct = { code: sent.code, height: sent.height, hash: sent.transactionHash, gasUsed: String(sent.gasUsed), gasWanted: String(sent.gasWanted), events: sent.events };

// LEGACY_AMINO_JSON, memo outside ASCII
const amino = await Secp256k1HdWallet.fromMnemonic(bob.mnemonic, options(bob));
const aminoClient = await SigningStargateClient.connectWithSigner(net.rpc, amino, { gasPrice });
const aminoSent = await aminoClient.sendTokens(bob.address, alice.address, [{ denom: "wei", amount: "34" }], fee(200000), "naïve <memo> & \u{1F680}");
out.amino = { code: aminoSent.code, hash: aminoSent.transactionHash, rawLog: aminoSent.rawLog };

// a 2-of-3 multisig of plain keys
const members = await Promise.all(
  [0, 1, 2].map((n) => Secp256k1HdWallet.fromMnemonic(alice.mnemonic, { prefix: "st", hdPaths: [stringToPath(`m/44'/606'/7'/0/${n}`)] })),
);
const memberAccounts = await Promise.all(members.map(async (m) => (await m.getAccounts())[0]));
const multisigKey = createMultisigThresholdPubkey(
  memberAccounts.map((a) => ({ type: "tendermint/PubKeySecp256k1", value: Buffer.from(a.pubkey).toString("base64") })), 2);
const multisigAddress = pubkeyToAddress(multisigKey, "st");
await signing.sendTokens(alice.address, multisigAddress, [{ denom: "wei", amount: "1000000000000000000" }], fee(200000));
const onChain = await reader.getAccount(multisigAddress);
const instruction = { accountNumber: onChain.accountNumber, sequence: onChain.sequence, chainId: net.chain_id };
const multisigMessage = { typeUrl: message.typeUrl, value: { fromAddress: multisigAddress, toAddress: bob.address, amount: [{ denom: "wei", amount: "77" }] } };
const signatures = new Map();
let bodyBytes;
for (const [index, member] of [members[0], members[2]].entries()) {
  const client = await SigningStargateClient.offline(member);
  const address = memberAccounts[index === 0 ? 0 : 2].address;
  const part = await client.sign(address, [multisigMessage], fee(300000), "two of three", instruction);
  bodyBytes = part.bodyBytes;
  signatures.set(address, part.signatures[0]);
}
const multisigTx = makeMultisignedTxBytes(multisigKey, onChain.sequence, fee(300000), bodyBytes, signatures);
const multisigSent = await reader.broadcastTx(multisigTx);
out.multisig = { address: multisigAddress, code: multisigSent.code, rawLog: multisigSent.rawLog };

// wrong sequence: the client must see the SDK's code
const wrong = await signing.sign(alice.address, [message], fee(200000), "stale", { accountNumber: Number((await reader.getAccount(alice.address)).accountNumber), sequence: 0, chainId: net.chain_id });
out.wrongSigner = await reader.broadcastTx(TxRaw.encode(wrong).finish()).then((r) => ({ code: r.code }), (e) => ({ code: e.code, codespace: e.codespace, log: e.log }));

// search and blocks
out.byHash = await reader.getTx(out.direct.hash).then((t) => ({ code: t.code, height: t.height, memo: t.tx.length }));
out.byRecipient = (await reader.searchTx(`transfer.recipient='${bob.address}'`)).map((t) => t.hash);
out.bySequence = (await reader.searchTx([{ key: "message.sender", value: alice.address }])).length;
const block = await reader.getBlock(out.direct.height);
out.block = { height: block.header.height, chainId: block.header.chainId, txs: block.txs.length };
const comet = await Comet38Client.connect(net.rpc);
out.status = (await comet.status()).nodeInfo.network;
const results = await comet.blockResults(out.direct.height);
out.blockResults = results.results.length;
const proofQuery = await comet.abciQuery({ path: "/store/bank/key", data: Uint8Array.from([0]), prove: true, height: block.header.height });
out.proof = { code: proofQuery.code, ops: proofQuery.proof ? proofQuery.proof.ops.map((o) => o.type) : null };

// the same over a websocket, and what happens while we listen
const socket = await Comet38Client.connect(net.rpc.replace("http", "ws"));
const next = (stream, wanted) => new Promise((resolve, reject) => {
  const timer = setTimeout(() => reject(new Error("nothing came over the websocket in 30 s")), 30000);
  const subscription = stream.subscribe({
    next: (event) => { if (wanted(event)) { clearTimeout(timer); subscription.unsubscribe(); resolve(event); } },
    error: (error) => { clearTimeout(timer); reject(error); },
  });
});
const heard = Promise.all([
  next(socket.subscribeNewBlock(), () => true),
  next(socket.subscribeNewBlockHeader(), () => true),
  next(socket.subscribeTx(`transfer.recipient='${bob.address}' AND message.module='bank'`), () => true),
]);
const listened = await signing.sendTokens(alice.address, bob.address, [{ denom: "wei", amount: "99" }], fee(200000), "heard");
const [newBlock, newHeader, newTx] = await heard;
out.heard = { block: newBlock.header.height, header: newHeader.height, tx: toHex(newTx.hash).toUpperCase(), sent: listened.transactionHash, code: newTx.result.code };
socket.disconnect();
out.supply = await reader.forceGetQueryClient().bank.supplyOf("wei");
out.allBalances = await reader.getAllBalances(bob.address);
out.aliceAfter = await reader.getBalance(alice.address, "wei");
console.log(JSON.stringify(out, (_key, value) => (typeof value === "bigint" ? value.toString() : value)));
process.exit(0);
