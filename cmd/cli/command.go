// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fbpp-project/fbpp/vhostuser/program/version"
)

// usage is the template of what --help prints below the description.
const usage = `usage: {{.UseLine}}{{if .HasAvailableFlags}} [option]...{{end}}{{
	if .HasAvailableSubCommands}} COMMAND

commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

options:
{{.LocalFlags.FlagUsagesWrapped 100 | trimTrailingWhitespaces}}{{end}}{{
	if .HasAvailableInheritedFlags}}

options of all commands:
{{.InheritedFlags.FlagUsagesWrapped 100 | trimTrailingWhitespaces}}{{end}}
`

// Execute reads args and runs the command of root that they name. It returns ErrDone
// when they asked for the help or the version, which it prints to stdout. A wrong
// command line is a UsageError of one line, which the caller prints.
//
// The context and stdout reach the commands as those of cobra. A root with commands
// needs no RunE.
func Execute(ctx context.Context, root *cobra.Command, args []string, stdout io.Writer) error {
	if done, err := document(root, args); done {
		return err
	}
	if err := checkDashes(args); err != nil {
		return err
	}
	// cobra completes for every program. One without commands has no such command: it
	// would begin its work with options that were not checked.
	if !root.HasSubCommands() && len(args) > 0 &&
		strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		return Usagef("unknown command %q", args[0])
	}
	ran := false // false while the command line is read
	root.PersistentPreRun = func(*cobra.Command, []string) { ran = true }
	prepare(root)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(io.Discard) // nothing is printed there but what the error says, too
	switch err := root.ExecuteContext(ctx); {
	case ran:
		return err
	case err != nil:
		return UsageError{err}
	}
	return ErrDone
}

// prepare gives root the project's --help, --version and errors.
func prepare(root *cobra.Command) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.Version = version.Line(root.Name())
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetUsageTemplate(usage)
	root.Flags().Bool("version", false, "print the version and exit")
	root.PersistentFlags().BoolP("help", "h", false, "print this help and exit")
	root.CompletionOptions.DisableDefaultCmd = true
	root.SuggestionsMinimumDistance = 2
	prepareAll(root)
	if !root.HasSubCommands() {
		return
	}
	root.AddCommand(completion(root))
	root.SetHelpCommand(&cobra.Command{
		Use: "help [COMMAND]", Short: "print the help of a command", Args: cobra.MaximumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			about, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return Usagef("there is no command %q", strings.Join(args, " "))
			}
			return about.Help()
		},
	})
}

// prepareAll is prepare for what a command and all below it have in common.
func prepareAll(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = true // or cobra writes [flags] at the end
	if !cmd.HasSubCommands() {
		return
	}
	cmd.Args, cmd.RunE = wrongCommand, func(*cobra.Command, []string) error {
		return Usagef("no command")
	}
	for _, below := range cmd.Commands() {
		prepareAll(below)
	}
}

// wrongCommand is for words that name no command.
func wrongCommand(of *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	for _, similar := range of.SuggestionsFor(args[0]) {
		return fmt.Errorf("unknown command %q: is it %s?", args[0], similar)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// checkDashes returns an error for the first long option with one dash, which pflag
// takes for several short ones.
func checkDashes(args []string) error {
	oneDash := regexp.MustCompile(`^-[a-z][a-z-]+`)
	for _, arg := range args {
		if arg == "--" || strings.HasPrefix(arg, cobra.ShellCompRequestCmd) {
			return nil
		}
		if oneDash.MatchString(arg) {
			return Usagef("options have two dashes: -%s", oneDash.FindString(arg))
		}
	}
	return nil
}

// completion is the command that prints what makes a shell complete the others.
func completion(root *cobra.Command) *cobra.Command {
	shells := map[string]func(io.Writer) error{
		"bash": func(w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"fish": func(w io.Writer) error { return root.GenFishCompletion(w, true) },
		"zsh":  root.GenZshCompletion,
	}
	return &cobra.Command{
		Use: "completion bash|fish|zsh", Short: "print a shell's completion of the commands",
		ValidArgs: []string{"bash", "fish", "zsh"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return shells[args[0]](cmd.OutOrStdout())
		},
	}
}

// Parse reads the flags of a program without commands, as [Execute] does. No
// arguments may follow them.
func Parse(fs *pflag.FlagSet, args []string, stdout io.Writer) error {
	cmd := &cobra.Command{Use: fs.Name(), Args: NoArgs, Run: func(*cobra.Command, []string) {}}
	cmd.Flags().AddFlagSet(fs)
	return Execute(context.Background(), cmd, args, stdout)
}

// NoArgs refuses arguments that are no flags. It is for the Args of a command.
func NoArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	return nil
}

// Var adds a flag for a value that names no type.
func Var(fs *pflag.FlagSet, v flag.Value, name, usage string) {
	fs.Var(typed{v}, name, usage)
}

// typed makes a pflag.Value of a flag.Value.
type typed struct{ flag.Value }

// Type implements pflag.Value.
func (typed) Type() string { return "value" }
