// A poll of a file's status whose signature somebody uses again for a deletion: node replay.mjs GATEWAY MNEMONIC-FILE FILEHASH
// Prints what the gateway answers to both, and to the poll sent once more.
import { readFileSync } from "node:fs";
import { Gateway, keyOf } from "./client.mjs";

const [url, words, filehash] = process.argv.slice(2);
const gateway = new Gateway(url, keyOf(readFileSync(words, "utf8")));
const fields = { filehash, ...gateway.signed(filehash) };
const answer = (method) => gateway.call(method, fields).catch((error) => ({ return: error.code, message: error.message }));
const poll = await answer("user_getFileStatus");
const deletion = await answer("user_requestDeleteFile");
const again = await answer("user_getFileStatus");
console.log(JSON.stringify({ poll, deletion, again }));
