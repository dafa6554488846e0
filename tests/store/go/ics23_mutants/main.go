// Asks Go's ics23 for its verdict on mutated proofs.
//
// Standard input: one JSON object per line, {"spec": "iavl"|"tendermint"|"smt", "root": hex, "key": hex, "value": hex or "", "proof": hex}.
// An empty value asks for absence. Standard output: one line per input line, a string of 0 and 1.
// Without arguments: the verdict on the proof as given, one digit. With "all": one digit per (byte, other value) in order,
// byte 0 with XOR 1..255, byte 1 with XOR 1..255, and so on; "all 64 5" takes bytes 5, 69, 133 … only.
// With "bits": one digit per (byte, single bit), 8 per byte.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"

	ics23 "github.com/cosmos/ics23/go"
)

type claim struct {
	Spec  string `json:"spec"`
	Root  string `json:"root"`
	Key   string `json:"key"`
	Value string `json:"value"`
	Proof string `json:"proof"`
}

var specs = map[string]*ics23.ProofSpec{
	"iavl":       ics23.IavlSpec,
	"tendermint": ics23.TendermintSpec,
	"smt":        ics23.SmtSpec,
}

func unhex(text string) []byte {
	raw, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return raw
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil || value < 0 {
		panic("expected a number that is not negative, got " + text)
	}
	return value
}

// verdict treats a panic inside the library as a refusal: the caller of a light client would not accept the proof either.
func verdict(spec *ics23.ProofSpec, root, key, value, raw []byte) (answer byte) {
	answer = '0'
	defer func() { _ = recover() }()
	var proof ics23.CommitmentProof
	if proof.Unmarshal(raw) != nil {
		return
	}
	if len(value) == 0 {
		if ics23.VerifyNonMembership(spec, root, &proof, key) {
			answer = '1'
		}
	} else if ics23.VerifyMembership(spec, root, &proof, key, value) {
		answer = '1'
	}
	return
}

func main() {
	mode := ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	step, first := 1, 0
	if len(os.Args) > 3 {
		step, first = number(os.Args[2]), number(os.Args[3])
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<20), 1<<26)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for in.Scan() {
		var c claim
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			panic(err)
		}
		spec, root, key, value, raw := specs[c.Spec], unhex(c.Root), unhex(c.Key), unhex(c.Value), unhex(c.Proof)
		switch mode {
		case "":
			out.WriteByte(verdict(spec, root, key, value, raw))
		case "bits":
			for i := range raw {
				for bit := 0; bit < 8; bit++ {
					mutant := append([]byte(nil), raw...)
					mutant[i] ^= 1 << bit
					out.WriteByte(verdict(spec, root, key, value, mutant))
				}
			}
		case "all":
			for i := first; i < len(raw); i += step {
				for x := 1; x < 256; x++ {
					mutant := append([]byte(nil), raw...)
					mutant[i] ^= byte(x)
					out.WriteByte(verdict(spec, root, key, value, mutant))
				}
			}
		}
		out.WriteByte('\n')
	}
}
