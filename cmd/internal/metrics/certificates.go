package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Certificate is one that a node uses, or trusts.
type Certificate struct {
	Use     string // certificate or ca
	Subject string
	Until   time.Time
}

// ObserveCertificates shows until when the certificates in use are good; it is called
// once. The function is asked at every scrape, because they are replaced while the node
// runs.
func (m *Metrics) ObserveCertificates(all func() []Certificate) error {
	return m.registry.Register(certificates{all})
}

type certificates struct{ all func() []Certificate }

var expires = newDesc("certificate_expiry_timestamp_seconds", "When a certificate that this node uses, or trusts, expires.", "use", "subject")

// Describe implements prometheus.Collector.
func (c certificates) Describe(out chan<- *prometheus.Desc) { out <- expires }

// Collect implements prometheus.Collector. Of several with one name, such as
// authorities that are being replaced, the first to expire is told.
func (c certificates) Collect(out chan<- prometheus.Metric) {
	first := map[[2]string]time.Time{}
	for _, x := range c.all() {
		name := [2]string{x.Use, x.Subject}
		if until, ok := first[name]; !ok || x.Until.Before(until) {
			first[name] = x.Until
		}
	}
	for name, until := range first {
		out <- prometheus.MustNewConstMetric(expires, prometheus.GaugeValue, float64(until.Unix()), name[0], name[1])
	}
}
