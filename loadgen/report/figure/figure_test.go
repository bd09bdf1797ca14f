package figure

import "testing"

func TestFigures(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{Latency(0), "0 ns"}, {Latency(850), "850 ns"}, {Latency(999.6), "1 µs"}, {Latency(42_345), "42.3 µs"}, {Latency(999_600), "1 ms"},
		{Latency(1_234_567), "1.23 ms"}, {Latency(12e9), "12 s"}, {Latency(204e9), "3.4 min"},
		{Seconds(0.25), "0.25 s"}, {Seconds(90), "90 s"}, {Seconds(750), "12.5 min"}, {Seconds(86400), "24 h"},
		{Bytes(0), "0 B"}, {Bytes(512), "512 B"}, {Bytes(1536), "1.5 KiB"}, {Bytes(34 << 20), "34 MiB"}, {Bytes(1023.9), "1 KiB"},
		{Short(950), "950"}, {Short(12500), "12.5k"}, {Short(1.2e6), "1.2M"}, {Short(-0.0001), "0"},
		{Rate(-3), "0"}, {Rate(19_999.6), "20,000"}, {Count(999), "999"}, {Count(1_234_567), "1,234,567"},
		{Percent(0), "0 %"}, {Percent(0.004), "0.4 %"}, {Percent(0.514), "51 %"}, {Percent(1.62), "162 %"},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}
