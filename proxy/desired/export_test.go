package desired

// Remembered counts what a Builder holds, so that a test can see that it forgets.
func (b *Builder) Remembered() int {
	return len(b.services) + len(b.claims.owners) + len(b.claims.losers) + len(b.changes)
}
