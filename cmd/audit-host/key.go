package main

import (
	"crypto/ed25519"
	"fmt"

	"github.com/audit-host/audit-host/sign"
	"github.com/spf13/cobra"
)

func newKeyNew() *cobra.Command {
	return &cobra.Command{
		Use:   "new [NAME]",
		Short: "Make a key pair: NAME.key (mode 0600) and NAME.pub",
		Long: `Makes an Ed25519 key pair in PEM and writes its key id to stdout. Neither file
may exist. NAME is "audit" unless given.`,
		Args: arguments(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			name := "audit"
			if len(args) > 0 {
				name = args[0]
			}
			public, err := sign.CreateKeyPair(name+".key", name+".pub")
			if err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "made %s.key (keep it secret) and %s.pub (give it to the auditor)\n", name, name)
			_, err = fmt.Fprintln(c.OutOrStdout(), sign.KeyID(public))
			return err
		},
	}
}

func newKeyPublic() *cobra.Command {
	c := &cobra.Command{
		Use:   "public [-c FILE | KEY]",
		Short: "Show the public half of a private key",
		Long: `Writes the public key to stdout, in PEM, and its key id to stderr. KEY is a
private key file; without it the one of the configuration is taken.`,
		Args: arguments(0, 1),
	}
	path := configFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		private := ""
		if len(args) > 0 {
			if c.Flags().Changed("config") {
				return usageError("%s: give KEY or -c, not both", c.CommandPath())
			}
			private = args[0]
		} else {
			cfg, err := loadConfig(*path)
			if err != nil {
				return err
			}
			if !cfg.Signing.Enabled() {
				return &exitError{exitConfig, fmt.Errorf("%s names no key: set private_key and public_key in [signing]", *path)}
			}
			private = cfg.Signing.PrivateKey
		}
		key, err := sign.ReadPrivate(private)
		if err != nil {
			return err
		}
		public := key.Public().(ed25519.PublicKey)
		text, err := sign.MarshalPublic(public)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.ErrOrStderr(), "key id %s\n", sign.KeyID(public))
		_, err = c.OutOrStdout().Write(text)
		return err
	}
	return c
}
