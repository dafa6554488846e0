// Writes to stdout, as JSON, key records and armor in the forms that tools before Cosmos SDK 0.46 kept, made with the SDK's own
// amino codec, bcrypt and XSalsa20 code: vectors for reading them.
package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"github.com/cometbft/cometbft/crypto"
	"github.com/cosmos/cosmos-sdk/codec"
	"github.com/cosmos/cosmos-sdk/codec/legacy"
	codectypes "github.com/cosmos/cosmos-sdk/codec/types"
	sdkcrypto "github.com/cosmos/cosmos-sdk/crypto"
	cryptocodec "github.com/cosmos/cosmos-sdk/crypto/codec"
	"github.com/cosmos/cosmos-sdk/crypto/hd"
	"github.com/cosmos/cosmos-sdk/crypto/keys/bcrypt"
	"github.com/cosmos/cosmos-sdk/crypto/keys/multisig"
	"github.com/cosmos/cosmos-sdk/crypto/keys/secp256k1"
	cryptotypes "github.com/cosmos/cosmos-sdk/crypto/types"
	"github.com/cosmos/cosmos-sdk/crypto/xsalsa20symmetric"
)

type record interface{}

type localInfo struct {
	Name         string
	PubKey       cryptotypes.PubKey
	PrivKeyArmor string
	Algo         hd.PubKeyType
}

type ledgerInfo struct {
	Name   string
	PubKey cryptotypes.PubKey
	Path   hd.BIP44Params
	Algo   hd.PubKeyType
}

type offlineInfo struct {
	Name   string
	PubKey cryptotypes.PubKey
	Algo   hd.PubKeyType
}

type memberInfo struct {
	PubKey cryptotypes.PubKey
	Weight uint
}

type multiInfo struct {
	Name      string
	PubKey    cryptotypes.PubKey
	Threshold uint
	PubKeys   []memberInfo
}

// UnpackInterfaces lets amino see through the Any of each member.
func (i multiInfo) UnpackInterfaces(unpacker codectypes.AnyUnpacker) error {
	return codectypes.UnpackInterfaces(i.PubKey.(*multisig.LegacyAminoPubKey), unpacker)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	cdc := codec.NewLegacyAmino()
	cryptocodec.RegisterCrypto(cdc)
	cdc.RegisterInterface((*record)(nil), nil)
	cdc.RegisterConcrete(hd.BIP44Params{}, "crypto/keys/hd/BIP44Params", nil)
	cdc.RegisterConcrete(localInfo{}, "crypto/keys/localInfo", nil)
	cdc.RegisterConcrete(ledgerInfo{}, "crypto/keys/ledgerInfo", nil)
	cdc.RegisterConcrete(offlineInfo{}, "crypto/keys/offlineInfo", nil)
	cdc.RegisterConcrete(multiInfo{}, "crypto/keys/multiInfo", nil)

	var keys []cryptotypes.PrivKey
	var pubs []cryptotypes.PubKey
	for seed := byte(1); seed <= 3; seed++ {
		raw := make([]byte, 32)
		for i := range raw {
			raw[i] = seed
		}
		key := &secp256k1.PrivKey{Key: raw}
		keys = append(keys, key)
		pubs = append(pubs, key.PubKey())
	}
	multi := multisig.NewLegacyAminoPubKey(2, pubs)
	bare, err := legacy.Cdc.Marshal(keys[0])
	fail(err)
	path := *hd.NewFundraiserParams(3, 118, 5)

	records := map[string]record{
		"local":   localInfo{"one", pubs[0], string(bare), hd.Secp256k1Type},
		"ledger":  ledgerInfo{"two", pubs[1], path, hd.Secp256k1Type},
		"offline": offlineInfo{"three", pubs[2], hd.Secp256k1Type},
		"multi":   multiInfo{"four", multi, 2, []memberInfo{{pubs[0], 1}, {pubs[1], 1}, {pubs[2], 1}}},
	}
	out := map[string]string{}
	for kind, value := range records {
		bytes, err := cdc.MarshalLengthPrefixed(value)
		fail(err)
		out[kind] = hex.EncodeToString(bytes)
	}

	salt := []byte("0123456789abcdef")
	hash, err := bcrypt.GenerateFromPassword(salt, []byte("a passphrase"), 12)
	fail(err)
	sealed := xsalsa20symmetric.EncryptSymmetric(bare, crypto.Sha256(hash))
	out["bcrypt_armor"] = sdkcrypto.EncodeArmor("TENDERMINT PRIVATE KEY", map[string]string{
		"kdf": "bcrypt", "salt": fmt.Sprintf("%X", salt), "type": "secp256k1",
	}, sealed)
	out["bcrypt_armor_passphrase"] = "a passphrase"
	out["public_armor"] = sdkcrypto.ArmorPubKeyBytes([]byte("any bytes"), "secp256k1")
	out["private_key"] = base64.StdEncoding.EncodeToString(keys[0].Bytes())
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	fail(encoder.Encode(out))
}
