module github.com/decree-tx/decree/scripts/scale

go 1.26.0
