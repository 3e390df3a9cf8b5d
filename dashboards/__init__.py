"""What a person looks at: figures and reports, drawn from plain tables."""
