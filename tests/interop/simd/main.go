// The reference chain of ibc-go as one command, so that its behaviour can be held beside ours.
package main

import (
	"os"

	svrcmd "github.com/cosmos/cosmos-sdk/server/cmd"

	"github.com/cosmos/ibc-go/v8/testing/simapp"
	"github.com/cosmos/ibc-go/v8/testing/simapp/simd/cmd"
)

func main() {
	root := cmd.NewRootCmd()
	if svrcmd.Execute(root, "", simapp.DefaultNodeHome) != nil {
		os.Exit(1)
	}
}
