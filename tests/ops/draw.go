// SPDX-License-Identifier: Apache-2.0

package ops

import (
	"fmt"
	"html"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// The size of the picture, in its own units.
const (
	width     = 1080.0
	column    = width / 24
	rowHeight = 26.0
	gap       = 6.0
)

// colours are those of a panel's series, in turn.
var colours = []string{
	"#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777", "#ee8866",
}

// picture draws a dashboard's panels as SVG, where its own grid has them. data has the series
// of each.
func (d *dashboard) picture(data [][]series, from, to time.Time) string {
	var b strings.Builder
	height := 0.0
	for _, p := range d.Panels {
		height = max(height, (p.GridPos.Y+p.GridPos.H)*rowHeight)
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" `+
		`font-family="sans-serif" font-size="11">`+"\n<!-- SPDX-License-Identifier: Apache-2.0 -->\n"+
		`<rect width="100%%" height="100%%" fill="#f4f5f5"/>`+"\n", width, height)
	for i, p := range d.Panels {
		a := area{
			x: p.GridPos.X*column + gap/2, y: p.GridPos.Y*rowHeight + gap/2,
			w: p.GridPos.W*column - gap, h: p.GridPos.H*rowHeight - gap,
		}
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="#fff" `+
			`stroke="#d8d9da"/>`+"\n", a.x, a.y, a.w, a.h)
		a.text(&b, a.x+8, a.y+16, "#222", "start", 12, p.Title)
		if p.Type == "stat" {
			p.number(&b, a, data[i])
		} else {
			p.lines(&b, a, data[i], from, to)
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// area is where a panel is.
type area struct{ x, y, w, h float64 }

func (area) text(b *strings.Builder, x, y float64, fill, anchor string, size int, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" fill="%s" text-anchor="%s" font-size="%d">%s</text>`+
		"\n", x, y, fill, anchor, size, html.EscapeString(s))
}

// number shows the newest value.
func (p *panel) number(b *strings.Builder, a area, all []series) {
	said := "no data"
	if len(all) > 0 {
		said = p.format(all[0].points[len(all[0].points)-1].value)
	}
	a.text(b, a.x+a.w/2, a.y+a.h*0.75, colours[0], "middle", 34, said)
}

// lines shows values over time, with the legend below.
func (p *panel) lines(b *strings.Builder, a area, all []series, from, to time.Time) {
	const left, top, bottom, legend = 62.0, 28.0, 18.0, 14.0
	perLine := 3
	rows := float64((len(all) + perLine - 1) / perLine)
	plot := area{a.x + left, a.y + top, a.w - left - 12, a.h - top - bottom - rows*legend - 4}
	most := 0.0
	for _, s := range all {
		for _, v := range s.points {
			most = max(most, v.value)
		}
	}
	if most == 0 {
		most = 1
	}
	most *= 1.05
	for _, part := range []float64{0, 0.5, 1} {
		y := plot.y + plot.h*(1-part)
		fmt.Fprintf(b, `<path d="M%.1f %.1fh%.1f" stroke="#e3e4e5"/>`+"\n", plot.x, y, plot.w)
		a.text(b, plot.x-6, y+4, "#666", "end", 10, p.format(most*part))
	}
	span := to.Sub(from).Seconds()
	a.text(b, plot.x, plot.y+plot.h+14, "#666", "start", 10, "0 s")
	a.text(b, plot.x+plot.w, plot.y+plot.h+14, "#666", "end", 10, fmt.Sprintf("%.0f s", span))
	for i, s := range all {
		colour := colours[i%len(colours)]
		var path strings.Builder
		for n, v := range s.points {
			x := plot.x + plot.w*v.at.Sub(from).Seconds()/span
			y := plot.y + plot.h*(1-v.value/most)
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(n, 1)], x, y)
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.6"/>`+"\n", &path, colour)
		x := a.x + 14 + float64(i%perLine)*(a.w-20)/float64(perLine)
		y := a.y + a.h - rows*legend + float64(i/perLine)*legend + 8
		fmt.Fprintf(b, `<path d="M%.1f %.1fh12" stroke="%s" stroke-width="3"/>`+"\n", x, y-4, colour)
		a.text(b, x+17, y, "#444", "start", 10, s.name)
	}
}

// format writes a value in the panel's unit.
func (p *panel) format(v float64) string {
	switch p.Config.Defaults.Unit {
	case "bytes":
		return humanize.IBytes(uint64(v))
	case "s":
		return humanize.SIWithDigits(v, 1, "s")
	}
	return fmt.Sprintf("%.3g", v)
}
