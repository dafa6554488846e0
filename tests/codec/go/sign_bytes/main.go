// Reads transactions as JSON from stdin and writes what each signer signs in every mode to stdout, by the SDK's own x/tx code:
// vectors for sign documents. From x/tx 0.13.5 on decimals are shown as wallets sign them.
package main

import (
	"context"
	"encoding/json"
	"os"

	authv1beta1 "cosmossdk.io/api/cosmos/auth/v1beta1"
	authzv1beta1 "cosmossdk.io/api/cosmos/authz/v1beta1"
	bankv1beta1 "cosmossdk.io/api/cosmos/bank/v1beta1"
	consensusv1 "cosmossdk.io/api/cosmos/consensus/v1"
	crisisv1beta1 "cosmossdk.io/api/cosmos/crisis/v1beta1"
	ed25519v1 "cosmossdk.io/api/cosmos/crypto/ed25519"
	distributionv1beta1 "cosmossdk.io/api/cosmos/distribution/v1beta1"
	evidencev1beta1 "cosmossdk.io/api/cosmos/evidence/v1beta1"
	feegrantv1beta1 "cosmossdk.io/api/cosmos/feegrant/v1beta1"
	govv1 "cosmossdk.io/api/cosmos/gov/v1"
	govv1beta1 "cosmossdk.io/api/cosmos/gov/v1beta1"
	mintv1beta1 "cosmossdk.io/api/cosmos/mint/v1beta1"
	slashingv1beta1 "cosmossdk.io/api/cosmos/slashing/v1beta1"
	stakingv1beta1 "cosmossdk.io/api/cosmos/staking/v1beta1"
	txv1beta1 "cosmossdk.io/api/cosmos/tx/v1beta1"
	upgradev1beta1 "cosmossdk.io/api/cosmos/upgrade/v1beta1"
	vestingv1beta1 "cosmossdk.io/api/cosmos/vesting/v1beta1"
	"cosmossdk.io/x/tx/signing"
	"cosmossdk.io/x/tx/signing/aminojson"
	"cosmossdk.io/x/tx/signing/direct"
	"cosmossdk.io/x/tx/signing/directaux"
	"github.com/cosmos/btcutil/bech32"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

// Their packages register the messages.
var _ = []proto.Message{
	&authv1beta1.MsgUpdateParams{}, &bankv1beta1.MsgSend{}, &consensusv1.MsgUpdateParams{}, &ed25519v1.PubKey{},
	&stakingv1beta1.MsgCreateValidator{}, &vestingv1beta1.MsgCreateVestingAccount{},
	&slashingv1beta1.MsgUnjail{}, &evidencev1beta1.MsgSubmitEvidence{}, &evidencev1beta1.Equivocation{},
	&govv1.MsgVote{}, &govv1beta1.MsgVote{},
	&distributionv1beta1.MsgFundCommunityPool{}, &mintv1beta1.MsgUpdateParams{}, &authzv1beta1.MsgGrant{}, &feegrantv1beta1.MsgGrantAllowance{},
	&upgradev1beta1.MsgSoftwareUpgrade{}, &crisisv1beta1.MsgVerifyInvariant{},
}

type question struct {
	Name          string `json:"name"`
	Body          []byte `json:"body"`
	AuthInfo      []byte `json:"auth_info"`
	ChainID       string `json:"chain_id"`
	AccountNumber uint64 `json:"account_number"`
	Sequence      uint64 `json:"sequence"`
	Signer        string `json:"signer"`
	KeyURL        string `json:"key_url"`
	Key           []byte `json:"key"`
}

type answer struct {
	question
	Direct    []byte `json:"direct"`
	DirectAux []byte `json:"direct_aux"`
	Amino     string `json:"amino"`
}

type prefix string

func (p prefix) StringToBytes(text string) ([]byte, error) {
	_, words, err := bech32.Decode(text, 1023)
	if err != nil {
		return nil, err
	}
	return bech32.ConvertBits(words, 5, 8, false)
}

func (p prefix) BytesToString(raw []byte) (string, error) {
	words, err := bech32.ConvertBits(raw, 8, 5, true)
	if err != nil {
		return "", err
	}
	return bech32.Encode(string(p), words)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	var questions []question
	check(json.NewDecoder(os.Stdin).Decode(&questions))
	signers, err := signing.NewContext(signing.Options{
		AddressCodec: prefix("st"), ValidatorAddressCodec: prefix("stvaloper"), FileResolver: protoregistry.GlobalFiles,
	})
	check(err)
	aux, err := directaux.NewSignModeHandler(directaux.SignModeHandlerOptions{SignersContext: signers})
	check(err)
	amino := aminojson.NewSignModeHandler(aminojson.SignModeHandlerOptions{})
	plain := direct.SignModeHandler{}

	answers := make([]answer, 0, len(questions))
	for _, q := range questions {
		body, info := &txv1beta1.TxBody{}, &txv1beta1.AuthInfo{}
		check(proto.Unmarshal(q.Body, body))
		check(proto.Unmarshal(q.AuthInfo, info))
		data := signing.TxData{Body: body, AuthInfo: info, BodyBytes: q.Body, AuthInfoBytes: q.AuthInfo}
		signer := signing.SignerData{
			Address: q.Signer, ChainID: q.ChainID, AccountNumber: q.AccountNumber, Sequence: q.Sequence,
			PubKey: &anypb.Any{TypeUrl: q.KeyURL, Value: q.Key},
		}
		a := answer{question: q}
		a.Direct, err = plain.GetSignBytes(context.Background(), signer, data)
		check(err)
		// A fee payer has no answer here, by the mode's own rule.
		if a.DirectAux, err = aux.GetSignBytes(context.Background(), signer, data); err != nil {
			a.DirectAux = nil
		}
		text, err := amino.GetSignBytes(context.Background(), signer, data)
		check(err)
		a.Amino = string(text)
		answers = append(answers, a)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	check(out.Encode(answers))
}
