#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
#
# Prints the lines of files that have more than 100 columns: columns.pl FILE...
# A tab counts as one, as in other linters of Go.
#
# Excepted is what cannot be broken: tables and the targets of links in
# Markdown, lines of one word, and directives for the compiler.
use strict;
use warnings;
use open qw(:std :encoding(UTF-8));

my $limit = 100;

while (my $line = <>) {
	chomp $line;
	my $shown = $line;
	if ($ARGV =~ /\.md$/) {
		next if $shown =~ /^\s*\|/;
		$shown =~ s/\]\([^)]*\)/]/g;
	}
	next if $shown =~ m{^\s*(//|\#|-)?\s*\S+$} || $shown =~ m{^//go:};
	print "$ARGV:$.: ", length($shown), " columns\n" if length($shown) > $limit;
} continue {
	close ARGV if eof;
}
