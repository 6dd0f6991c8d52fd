module github.com/decree-tx/decree/scripts/mutants

go 1.26.0
