// A reference client of the gateway's JSON-RPC (docs/gateway.md), for Node.js and, without the command line at the end, for browsers.
//
//   words ─► keyOf ─► Gateway ─ upload, list, share, download, downloadShared, remove ─► POST / of a gateway
//                        └ every call carries a signature of the wallet; the gateway never sees the key
//
//   node client.mjs GATEWAY MNEMONIC-FILE balance | put FILE | get FILEHASH OUT | list | share FILEHASH [private] | get-shared LINK OUT | rm FILEHASH | demo
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { keccak_256 } from "@noble/hashes/sha3.js";
import { base32hex, base64, bech32, hex } from "@scure/base";
import { HDKey } from "@scure/bip32";
import { mnemonicToSeedSync } from "@scure/bip39";

export const HD_PATH = "m/44'/606'/0'/0/0";
const FILE = 0x66;
const VIDEO = 0x72;
const PACKET_BYTES_MOST = 3 * 1024 * 1024;
const CHUNK_BYTES_MOST = 3_500_000;
// The gateway takes 120 s for an answer at most; then it says 503.
const ANSWER_MS = 150_000;
const TRIES = 3;
const POLL_MS = 1000;
const STORED = 3;
const FAILED = 2;
const SIGNATURE_FAILURE = -3;
const INTERNAL_DATA_FAILURE = -9;

/** What a gateway answers when a call cannot be done: `code` is its number, negative (docs/gateway.md, "Return codes"). */
export class GatewayError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** BIP-39 words → the private key of the wallet, 32 bytes. */
export function keyOf(words, path = HD_PATH) {
  return HDKey.fromMasterSeed(mnemonicToSeedSync(words.trim().split(/\s+/).join(" "))).derive(path).privateKey;
}

/** A private key → the wallet's address, `st1…`. */
export function walletOf(key) {
  return bech32.encode("st", bech32.toWords(keccak_256(secp256k1.getPublicKey(key, false).slice(1)).slice(12)));
}

/** A private key → its public key, `stpub1…`. */
export function pubkeyOf(key) {
  return bech32.encode("stpub", bech32.toWords(secp256k1.getPublicKey(key, true)), 120);
}

/** A key and the string of a call → the call's `signature` object. */
export function sign(key, string) {
  const signature = secp256k1.sign(keccak_256(new TextEncoder().encode(string)), key, { prehash: false, lowS: true });
  return { address: walletOf(key), pubkey: pubkeyOf(key), signature: hex.encode(signature) };
}

const multihash = (digest) => Uint8Array.of(0x1b, 0x14, ...digest.slice(0, 20));

/** The Keccak-256 of the content, 32 bytes → the file's hash, 40 characters. */
function fileHashOf(digest, codec = FILE) {
  const bytes = Uint8Array.of(1, codec, ...multihash(keccak_256(multihash(digest))));
  return "v" + base32hex.encode(bytes).replace(/=+$/, "").toLowerCase();
}

/** A Blob, as a browser's File → its hash. It is read piece by piece. */
export async function fileHash(blob, codec = FILE) {
  const hash = keccak_256.create();
  for await (const piece of blob.stream()) hash.update(piece);
  return fileHashOf(hash.digest(), codec);
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** A wallet at one gateway. Calls that cannot be done throw GatewayError, a gateway that cannot be reached or lies an Error. */
export class Gateway {
  #url;
  #key;
  #last = 0;
  #polled = 0;

  constructor(url, key) {
    this.#url = url;
    this.#key = key;
    this.wallet = walletOf(key);
  }

  /** One call → its `result`. It is sent again, as it was, when no answer came: the gateway does nothing twice. */
  async call(method, params) {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params: [params] });
    for (let tries = 1; ; tries++) {
      let answer;
      try {
        const signal = AbortSignal.timeout(ANSWER_MS);
        answer = await fetch(this.#url, { method: "POST", headers: { "Content-Type": "application/json" }, body, signal });
        if (answer.status === 200) return this.#resultOf(method, await answer.json());
      } catch (error) {
        if (error instanceof GatewayError) throw error;
        if (tries === TRIES) throw new Error(`no answer of ${this.#url} to ${method}: ${error.cause?.message ?? error.message}`);
      }
      if (answer && answer.status !== 200 && (tries === TRIES || ![408, 503].includes(answer.status))) {
        throw new Error(`${method}: HTTP ${answer.status} ${(await answer.text()).slice(0, 200)}`);
      }
      await pause(POLL_MS);
    }
  }

  #resultOf(method, { result, error }) {
    if (error) throw new GatewayError(error.code, `${method}: ${error.code} ${error.message}`);
    const code = parseInt(result.return, 10);
    if (!(code >= 0)) throw new GatewayError(code, `${method}: ${result.return} ${result.detail ?? ""}`.trim());
    return { ...result, return: code };
  }

  // Unix seconds that this object has not signed before: a string is for one use, and a poll and a deletion are the same string but for the time.
  #time() {
    this.#last = Math.max(Math.floor(Date.now() / 1000), this.#last + 1, this.#polled + 1);
    return this.#last;
  }

  // A poll may be sent again as it is, so its time is the clock's: polls whose times run ahead would forbid other programs of this wallet to delete then.
  #poll(subject) {
    const req_time = (this.#polled = Math.floor(Date.now() / 1000));
    return { req_time, signature: sign(this.#key, subject + this.wallet + req_time) };
  }

  /** The signed fields of a call that spends nothing; `subject` is what stands before the wallet in the string. */
  signed(subject) {
    const req_time = this.#time();
    return { req_time, signature: sign(this.#key, subject + this.wallet + req_time) };
  }

  /** The same of a call that may spend: an upload or a download. */
  async #spending(subject) {
    const sequencenumber = (await this.ozone()).sequencynumber;
    const req_time = this.#time();
    return { req_time, sequencenumber, signature: sign(this.#key, subject + this.wallet + sequencenumber + req_time) };
  }

  // -3: another program of this wallet signed the same string in this second, or spent the sequence number. Signed anew it holds.
  async #ask(method, params, fields) {
    try {
      return await this.call(method, { ...params, ...(await fields()) });
    } catch (error) {
      if (error.code !== SIGNATURE_FAILURE) throw error;
      await pause(POLL_MS);
      return this.call(method, { ...params, ...(await fields()) });
    }
  }

  /** {ozone, sequencynumber}; ozone is in noz, as decimal text. */
  async ozone() {
    return this.call("user_requestGetOzone", { walletaddr: this.wallet });
  }

  /** Store a Blob under a name → {filehash, replicas}, once it is stored. An upload that was broken off goes on. */
  async upload(filename, blob, codec = FILE) {
    const filehash = await fileHash(blob, codec);
    const fields = () => this.#spending(filehash);
    const begin = codec === VIDEO ? "user_requestUploadStream" : "user_requestUpload";
    let wanted = await this.#ask(begin, { filename, filesize: blob.size, filehash, resume: true }, fields);
    for (let at = -1; wanted.return === 1; ) {
      const { offsetstart, offsetend } = wanted;
      if (!(offsetstart > at && offsetend >= offsetstart && offsetend <= Math.min(blob.size, offsetstart + CHUNK_BYTES_MOST))) {
        throw new Error(`the gateway asks for bytes ${offsetstart} to ${offsetend} of ${blob.size}: use another one`);
      }
      at = offsetstart;
      const data = base64.encode(new Uint8Array(await blob.slice(offsetstart, offsetend).arrayBuffer()));
      wanted = await this.#ask("user_uploadData", { filehash, data, offsetstart }, fields);
    }
    try {
      await this.#ask("user_uploadSign", { filehash }, fields);
    } catch (error) {
      // A file that the wallet has already: it is stored, and nothing is paid.
      if (error.code !== INTERNAL_DATA_FAILURE || (await this.status(filehash)).file_upload_state !== STORED) throw error;
    }
    for (;;) {
      const status = await this.status(filehash);
      if (status.file_upload_state === STORED) return { filehash, replicas: status.replicas };
      if (status.file_upload_state === FAILED) throw new GatewayError(INTERNAL_DATA_FAILURE, `the upload failed: ${status.error}`);
      await pause(POLL_MS);
    }
  }

  /** {file_upload_state, user_has_file, replicas}. */
  async status(filehash) {
    return this.#ask("user_getFileStatus", { filehash }, () => this.#poll(filehash));
  }

  /** Own files, 20 on a page → {fileinfo, totalnumber}. */
  async list(page = 0) {
    return { fileinfo: [], ...(await this.#ask("user_requestList", { page }, () => this.signed(""))) };
  }

  /** A link to a file → {shareid, sharelink}; of a private share the link has the password, and `password` is it. */
  async share(filehash, isPrivate = false, durationS = 0) {
    return this.#ask("user_requestShare", { filehash, duration: durationS, private_flag: isPrivate }, () => this.signed(filehash));
  }

  /** A file into the trash. */
  async remove(filehash) {
    return this.#ask("user_requestDeleteFile", { filehash }, () => this.signed(filehash));
  }

  /** An own file → its packets, Uint8Arrays in order. Keep them only when the last has come: then the content has the hash, else an Error is thrown. */
  async *download(filehash) {
    const filehandle = `sdm://${this.wallet}/${filehash}`;
    const first = await this.#ask("user_requestDownload", { filehandle }, () => this.#spending(filehash));
    if (first.filehash !== filehash) throw new Error(`asked for ${filehash}, the gateway gave ${first.filehash}: use another one`);
    yield* this.#packets(first);
  }

  /** The same of a link that somebody shared: `[sds://]LINK[/PASSWORD]`. This wallet pays. */
  async *downloadShared(sharelink) {
    const bare = sharelink.replace(/^sds:\/\//, "").split("/")[0];
    yield* this.#packets(await this.#ask("user_requestGetShared", { sharelink }, () => this.#spending(bare)));
  }

  async *#packets(first) {
    const { filehash, reqid, filesize } = first;
    const hash = keccak_256.create();
    let at = 0;
    for (let packet = first; packet.return === 2; packet = await this.call("user_downloadData", { filehash, reqid, offsetstart: at })) {
      const bytes = base64.decode(packet.filedata ?? "");
      if (packet.offsetstart !== at || bytes.length > PACKET_BYTES_MOST || at + bytes.length > filesize || (bytes.length === 0 && filesize > 0)) {
        throw new Error(`expected bytes from ${at} on, the gateway gave ${bytes.length} from ${packet.offsetstart} on: use another one`);
      }
      hash.update(bytes);
      at += bytes.length;
      yield bytes;
      if (at === filesize) break;
    }
    await this.call("user_downloadedFileInfo", { filehash, reqid });
    const digest = hash.digest();
    if (![FILE, VIDEO].some((codec) => fileHashOf(digest, codec) === filehash)) {
      throw new Error(`the bytes are not those of ${filehash}: the gateway lied, use another one`);
    }
  }
}

// --- command line -------------------------------------------------------------------------------------------------------------------

const COMMANDS = {
  balance: [0, 0, async (gateway) => ({ wallet: gateway.wallet, ...(await gateway.ozone()) })],
  put: [1, 1, async (gateway, path) => {
    const { openAsBlob } = await import("node:fs");
    const { basename } = await import("node:path");
    return gateway.upload(basename(path), await openAsBlob(path));
  }],
  get: [2, 2, (gateway, filehash, out) => written(gateway.download(filehash), out)],
  list: [0, 1, (gateway, page = "0") => gateway.list(Number(page))],
  share: [1, 2, (gateway, filehash, word) => gateway.share(filehash, word === "private")],
  "get-shared": [2, 2, (gateway, link, out) => written(gateway.downloadShared(link), out)],
  rm: [1, 1, (gateway, filehash) => gateway.remove(filehash)],
  demo: [0, 0, demo],
};

// Beside the file first: one with the right name is whole.
async function written(packets, out) {
  const { open, rename, rm } = await import("node:fs/promises");
  const beside = `${out}.part`;
  const file = await open(beside, "w");
  let size = 0;
  try {
    for await (const bytes of packets) {
      await file.write(bytes);
      size += bytes.length;
    }
    await file.close();
    await rename(beside, out);
  } catch (error) {
    await file.close();
    await rm(beside, { force: true });
    throw error;
  }
  return { out, size };
}

// Upload, share, download by the link, delete: a small file of random bytes.
async function demo(gateway) {
  const content = crypto.getRandomValues(new Uint8Array(10_000));
  const { filehash } = await gateway.upload("demo.bin", new Blob([content]));
  const { sharelink } = await gateway.share(filehash);
  const parts = [];
  for await (const bytes of gateway.downloadShared(sharelink)) parts.push(bytes);
  const read = new Uint8Array(await new Blob(parts).arrayBuffer());
  await gateway.remove(filehash);
  return { filehash, sharelink, is_equal: hex.encode(read) === hex.encode(content) };
}

async function main([url, words, name, ...given]) {
  const { readFile } = await import("node:fs/promises");
  const [least, most, run] = Object.hasOwn(COMMANDS, name ?? "") ? COMMANDS[name] : [1, 0];
  if (given.length < least || given.length > most) {
    throw new Error("node client.mjs GATEWAY MNEMONIC-FILE balance | put FILE | get FILEHASH OUT | list [PAGE] | share FILEHASH [private] | get-shared LINK OUT | rm FILEHASH | demo");
  }
  const gateway = new Gateway(url, keyOf(await readFile(words, "utf8")));
  console.log(JSON.stringify(await run(gateway, ...given)));
}

function isProgram() {
  if (!globalThis.process?.argv?.[1]) return false;
  const [{ realpathSync }, { pathToFileURL }] = ["node:fs", "node:url"].map((name) => process.getBuiltinModule(name));
  return import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href;
}

if (isProgram()) {
  main(process.argv.slice(2)).catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
