package main

import (
	"strings"

	"github.com/spf13/cobra"
)

func newCompletion() *cobra.Command {
	shells := []string{"bash", "fish", "powershell", "zsh"}
	return &cobra.Command{
		Use:       "completion SHELL",
		Short:     "Write the completion script of a shell: " + strings.Join(shells, ", "),
		Long:      "Writes a completion script to stdout. For bash: source <(audit-host completion bash)",
		Args:      arguments(1, 1),
		ValidArgs: shells,
		RunE: func(c *cobra.Command, args []string) error {
			root, out := c.Root(), c.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			case "zsh":
				return root.GenZshCompletion(out)
			}
			return usageError("no completion for %q, only for %s: %s", args[0], strings.Join(shells, ", "), meant(args[0], shells, c))
		},
	}
}
