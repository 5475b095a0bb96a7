// Package grafana holds the dashboard that the packages bring, and the part of Grafana's
// model that it uses. Grafana takes any JSON and shows an empty page for what it does not
// understand; this package does not.
package grafana

import (
	"bytes"
	_ "embed"
	"encoding/json"
)

//go:embed nexthopd.json
var file []byte

// Dashboard is a dashboard of schema version 39.
type Dashboard struct {
	UID           string                    `json:"uid"`
	Title         string                    `json:"title"`
	Description   string                    `json:"description"`
	Tags          []string                  `json:"tags"`
	SchemaVersion int                       `json:"schemaVersion"`
	Version       int                       `json:"version"`
	Editable      bool                      `json:"editable"`
	Timezone      string                    `json:"timezone"`
	Refresh       string                    `json:"refresh"`
	Time          struct{ From, To string } `json:"time"`
	Templating    struct {
		List []Variable `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []struct{} `json:"list"`
	} `json:"annotations"`
	Panels []Panel `json:"panels"`
}

// Variable is what a reader chooses. Query is a string for a data source, and an object
// for a query.
type Variable struct {
	Name       string          `json:"name"`
	Label      string          `json:"label"`
	Type       string          `json:"type"`
	Datasource *Datasource     `json:"datasource"`
	Query      json.RawMessage `json:"query"`
	Refresh    int             `json:"refresh"`
	IncludeAll bool            `json:"includeAll"`
	Multi      bool            `json:"multi"`
	Sort       int             `json:"sort"`
}

// Datasource refers to one.
type Datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

// Panel is a picture of some expressions.
type Panel struct {
	ID          int         `json:"id"`
	Type        string      `json:"type"`
	Title       string      `json:"title"`
	Description string      `json:"description"`
	Datasource  *Datasource `json:"datasource"`
	GridPos     struct {
		X, Y, W, H int
	} `json:"gridPos"`
	FieldConfig struct {
		Defaults struct {
			Unit       string `json:"unit"`
			Thresholds *struct {
				Mode  string `json:"mode"`
				Steps []struct {
					Color string   `json:"color"`
					Value *float64 `json:"value"`
				} `json:"steps"`
			} `json:"thresholds"`
		} `json:"defaults"`
		Overrides []struct{} `json:"overrides"`
	} `json:"fieldConfig"`
	Options struct {
		ReduceOptions *struct {
			Calcs []string `json:"calcs"`
		} `json:"reduceOptions"`
		ColorMode string `json:"colorMode"`
		TextMode  string `json:"textMode"`
	} `json:"options"`
	Targets []Target `json:"targets"`
}

// Target is an expression of a panel.
type Target struct {
	RefID        string      `json:"refId"`
	Datasource   *Datasource `json:"datasource"`
	Expr         string      `json:"expr"`
	LegendFormat string      `json:"legendFormat"`
	Instant      bool        `json:"instant"`
	Range        bool        `json:"range"`
}

// Load reads the dashboard. A key that the model lacks, or a value of another type, is an
// error.
func Load() (Dashboard, error) {
	var d Dashboard
	dec := json.NewDecoder(bytes.NewReader(file))
	dec.DisallowUnknownFields()
	return d, dec.Decode(&d)
}
