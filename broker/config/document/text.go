package document

import "strconv"

// Quoted shows a value in an error, at most some 60 bytes of it.
func Quoted(s string) string {
	if len(s) > 60 {
		return strconv.Quote(s[:57]) + "..."
	}
	return strconv.Quote(s)
}

// Nearest is the name that was probably meant, empty if none is near: the
// fewest letters changed, at most two or a quarter of them.
func Nearest(name string, names []string) string {
	best, bestAt := "", 1+max(2, len(name)/4)
	for _, n := range names {
		if d := Distance(name, n); d < bestAt {
			best, bestAt = n, d
		}
	}
	return best
}

// Distance is Levenshtein's, over bytes, of names cut to 64 bytes: the names of
// a table are short, those of a hostile file need not be.
func Distance(a, b string) int {
	const most = 64
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	var row [most + 1]int
	for j := range len(b) + 1 {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
