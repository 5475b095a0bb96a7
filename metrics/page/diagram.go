package page

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nexthopd/nexthopd/agent/status"
)

// shape is where the three columns of a diagram are, and how large its text is. There is
// one for a desk and one for a phone; the style shows the one that fits.
type shape struct {
	class            string
	width            int
	vnet, nva, group int // widths of the columns
	font             float64
	long             bool // there is room for words
}

var (
	wide   = shape{class: "wide", width: 1000, vnet: 190, nva: 230, group: 270, font: 13.5, long: true}
	narrow = shape{class: "narrow", width: 366, vnet: 96, nva: 100, group: 118, font: 11}
)

// Sizes that both shapes share.
const (
	margin    = 6
	lineStep  = 17
	boxGap    = 14
	padding   = 11
	mostDrawn = 12 // NVAs in the diagram
)

// diagram is the picture: the VNet, the NVAs, the groups, and what leads where.
type diagram struct {
	Class         string
	Width, Height int
	Label         string // for who cannot see it
	Lines         []line
	Boxes         []box
}

type box struct {
	Class      string
	X, Y, W, H int
	Title      string // shown where a mouse rests on it
	Dot        bool
	Texts      []label
}

type label struct {
	Class string
	X, Y  int
	Text  string
}

type line struct {
	Class string
	Path  string
	Title string
	X, Y  int // its middle, for the cross on a dead one
	Dead  bool
}

// DotX is where the dot of an NVA's state is, in the corner.
func (b box) DotX() int { return b.X + b.W - padding - 3 }

// DotY is on the line of the name.
func (b box) DotY() int { return b.Y + lineStep - 6 }

// right and left are where lines begin and end.
func (b box) right() (x, y int) { return b.X + b.W, b.Y + b.H/2 }
func (b box) left() (x, y int)  { return b.X, b.Y + b.H/2 }

func draw(s shape, o status.Overview, v view) diagram {
	d := diagram{Class: s.class, Width: s.width, Label: "VNet, NVAs and groups of prefixes: " + v.Headline}
	vnet := s.vnetBox(o)
	nvas, byName := s.nvaBoxes(v)
	groups := s.groupBoxes(v)
	columns := [][]box{{vnet}, nvas, groups}
	for _, c := range columns {
		d.Height = max(d.Height, columnHeight(c))
	}
	d.Height += 2 * margin
	gap := (s.width - 2 - s.vnet - s.nva - s.group) / 2
	for i, x := range []int{1, 1 + s.vnet + gap, 1 + s.vnet + gap + s.nva + gap} {
		place(columns[i], x, (d.Height-columnHeight(columns[i]))/2)
	}

	used := map[string]bool{}
	for gi, g := range v.Groups {
		for _, w := range g.Ways {
			if w.Use == status.InUse {
				used[w.Peer] = true
			}
			if i, ok := byName[w.Peer]; ok {
				d.Lines = append(d.Lines, connect(nvas[i], groups[gi], "leg "+strings.ReplaceAll(string(w.Use), " ", "-"), wayText(w), w.Use == status.Dead))
			}
		}
	}
	for _, p := range v.Peers[:min(len(v.Peers), mostDrawn)] {
		if i, ok := byName[p.Name]; ok {
			class := "session " + string(p.Level)
			if p.Level == good && !used[p.Name] {
				class = "session unused"
			}
			d.Lines = append(d.Lines, connect(columns[0][0], nvas[i], class, p.Name+" is "+p.State, p.Level == bad))
		}
	}
	// What is wrong is drawn last, over the rest.
	slices.SortStableFunc(d.Lines, func(a, b line) int {
		switch {
		case a.Dead == b.Dead:
			return 0
		case a.Dead:
			return 1
		}
		return -1
	})
	for _, c := range columns {
		d.Boxes = append(d.Boxes, c...)
	}
	return d
}

func wayText(w status.Way) string {
	text := fmt.Sprintf("%s via %s: %s", w.Peer, w.To(), w.Use)
	if w.Why != "" {
		text += ", " + w.Why
	}
	return text
}

func (s shape) vnetBox(o status.Overview) box {
	title := "VNet"
	texts := []string{}
	for i, p := range o.VNet {
		title += " " + p.String()
		switch {
		case i < 4:
			texts = append(texts, p.String())
		case i == 4:
			texts = append(texts, fmt.Sprintf("and %d more", len(o.VNet)-4))
		}
	}
	if len(texts) == 0 {
		texts = []string{"no prefixes"}
	}
	return s.box("vnet", s.vnet, title, append([]string{"VNet"}, texts...))
}

func (s shape) nvaBoxes(v view) (boxes []box, byName map[string]int) {
	byName = map[string]int{}
	for i, p := range v.Peers {
		if i == mostDrawn {
			boxes = append(boxes, s.box("more", s.nva, v.MorePeers, []string{plural(len(v.Peers)-i, "more", "more")}))
			break
		}
		state := p.State
		if p.For != "" {
			state += " " + p.For
		}
		if !s.long {
			state = map[level]string{good: "up", warn: p.State, bad: "down", off: "shut down"}[p.Level]
			if p.For != "" && p.Level != warn {
				state += " " + p.For
			}
		}
		b := s.box("nva "+string(p.Level), s.nva, p.Name+" "+p.Address+": "+p.State+" "+p.Why, []string{p.Name, p.Address, state})
		b.Dot = true
		byName[p.Name] = len(boxes)
		boxes = append(boxes, b)
	}
	if len(boxes) == 0 {
		boxes = append(boxes, s.box("none", s.nva, "no NVAs", []string{"no NVAs", "none is configured"}))
	}
	return boxes, byName
}

// shorter is for a phone.
var shorter = strings.NewReplacer("1 in use, no spare", "no spare", " in use", " used", " standby", " spare", "from an earlier run", "earlier run")

func (s shape) groupBoxes(v view) []box {
	var boxes []box
	for _, g := range v.Groups {
		head, state := g.Label+"  "+g.Prefixes, g.State
		if s.long {
			head += " prefixes"
			if g.n == 1 {
				head = g.Label + "  1 prefix"
			}
		} else {
			state = shorter.Replace(state)
		}
		boxes = append(boxes, s.box("group "+string(g.Level), s.group, g.Prefixes+" prefixes: "+g.State, []string{head, state}))
	}
	if v.MoreGroups != "" {
		boxes = append(boxes, s.box("more", s.group, v.MoreGroups, []string{count(v.restGroups) + " more groups", plural(v.restPrefixes, "prefix", "prefixes")}))
	}
	if len(boxes) == 0 {
		boxes = append(boxes, s.box("none", s.group, "no prefixes", []string{"no prefixes", "nothing is learned"}))
	}
	return boxes
}

// box makes one around its lines of text; the first is its name.
func (s shape) box(class string, width int, title string, texts []string) box {
	b := box{Class: class, W: width, H: len(texts)*lineStep + padding, Title: title}
	for i, t := range texts {
		l := label{X: padding, Y: (i+1)*lineStep - 1, Text: s.fit(t, width-2*padding, 0.58), Class: "detail"}
		if i == 0 { // bold, and in an NVA's box beside the dot
			l.Class, l.Text = "name", s.fit(t, width-2*padding-14, 0.65)
		}
		b.Texts = append(b.Texts, l)
	}
	return b
}

// fit cuts a text that would not fit into so many units of the diagram; em is the width
// of a usual letter, in a wide typeface.
func (s shape) fit(text string, room int, em float64) string {
	most := int(float64(room) / (s.font * em))
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}

func columnHeight(boxes []box) int {
	h := -boxGap
	for _, b := range boxes {
		h += b.H + boxGap
	}
	return h
}

func place(boxes []box, x, y int) {
	for i := range boxes {
		b := &boxes[i]
		b.X, b.Y = x, y
		for j := range b.Texts {
			b.Texts[j].X += x
			b.Texts[j].Y += y
		}
		y += b.H + boxGap
	}
}

func connect(from, to box, class, title string, dead bool) line {
	x1, y1 := from.right()
	x2, y2 := to.left()
	mid := (x1 + x2) / 2
	return line{
		Class: class, Title: title, Dead: dead, X: mid, Y: (y1 + y2) / 2,
		Path: fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x1, y1, mid, y1, mid, y2, x2, y2),
	}
}
