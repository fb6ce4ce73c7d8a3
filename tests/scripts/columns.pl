#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
#
# Prints the lines of files that have more than 100 columns, where a tab goes to
# the next multiple of 4: columns.pl FILE...
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
	1 while $shown =~ s/^([^\t]*)\t/$1 . ' ' x (4 - length($1) % 4)/e;
	print "$ARGV:$.: ", length($shown), " columns\n" if length($shown) > $limit;
} continue {
	close ARGV if eof;
}
