// Roots of Go iavl for random histories, the way the SDK applies a block: the net changes of a block in key order.
//
// Usage: iavl_histories HISTORIES SEED. Prints a JSON list of histories; a history is a list of versions
// {"changes": [[key hex, value hex or null], ...], "root": hex}.
package main

import (
	"encoding/hex"
	"encoding/json"
	"math/rand"
	"os"
	"sort"
	"strconv"

	"cosmossdk.io/log"
	"github.com/cosmos/iavl"
	dbm "github.com/cosmos/iavl/db"
)

type version struct {
	Changes [][2]*string `json:"changes"`
	Root    string       `json:"root"`
}

func text(raw []byte) *string {
	s := hex.EncodeToString(raw)
	return &s
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// history makes one random history: its character (many inserts, many removals, few keys, empty values) varies with the number.
func history(r *rand.Rand, number int) []version {
	tree := iavl.NewMutableTree(dbm.NewMemDB(), 100, true, log.NewNopLogger())
	space := []int{3, 12, 60, 400}[number%4]
	removing := []float64{0.1, 0.35, 0.6}[number%3]
	versions := 4 + r.Intn(8)
	var result []version
	for v := 0; v < versions; v++ {
		block := map[string][]byte{}
		for n := r.Intn([]int{4, 30, 60}[number%3] + 1); n > 0; n-- {
			key := []byte{byte(r.Intn(3))}
			if space > 12 {
				key = append(key, byte(r.Intn(space/4)))
			}
			if r.Intn(4) == 0 {
				key = append(key, byte(r.Intn(space)))
			}
			if r.Float64() < removing {
				block[string(key)] = nil
				continue
			}
			value := make([]byte, r.Intn(4))
			r.Read(value)
			block[string(key)] = value
		}
		if v == versions-1 && number%5 == 0 { // empty the tree
			it, err := tree.Iterator(nil, nil, true)
			check(err)
			for ; it.Valid(); it.Next() {
				block[string(it.Key())] = nil
			}
			check(it.Close())
		}
		keys := make([]string, 0, len(block))
		for key := range block {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		one := version{Changes: [][2]*string{}}
		for _, key := range keys {
			if block[key] == nil {
				_, _, err := tree.Remove([]byte(key))
				check(err)
				one.Changes = append(one.Changes, [2]*string{text([]byte(key)), nil})
			} else {
				_, err := tree.Set([]byte(key), block[key])
				check(err)
				one.Changes = append(one.Changes, [2]*string{text([]byte(key)), text(block[key])})
			}
		}
		root, _, err := tree.SaveVersion()
		check(err)
		one.Root = hex.EncodeToString(root)
		result = append(result, one)
	}
	return result
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	check(err)
	seed, err := strconv.ParseInt(os.Args[2], 10, 64)
	check(err)
	r := rand.New(rand.NewSource(seed))
	var all [][]version
	for n := 0; n < count; n++ {
		all = append(all, history(r, n))
	}
	check(json.NewEncoder(os.Stdout).Encode(all))
}
