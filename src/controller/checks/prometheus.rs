//! Instant queries to a Prometheus server.
//! Used by `checks/mod.rs` over the guarded client of `http.rs`. Takes numbers from the answer and nothing else.

use serde_json::Value;

use super::http::{Fetcher, json_body, number};
use super::{Answer, MAX_VALUES};
use crate::api::check::PrometheusSource;

impl Fetcher {
    pub async fn ask_prometheus(&self, source: &PrometheusSource) -> Answer {
        let url = format!("{}/api/v1/query", source.address.trim_end_matches('/'));
        let response = match self.get(&url, &[("query", &source.query)]).await {
            Ok(response) => response,
            Err(message) => return Answer::Error(message),
        };
        let status = response.status();
        match json_body(response).await {
            Ok(body) if status.is_success() => read(&body),
            // Prometheus names the kind of error in a fixed word; its message repeats the query.
            Ok(body) => {
                let kind = body["errorType"].as_str().unwrap_or("no reason given");
                Answer::Error(format!("the server answered {}: {kind}", status.as_u16()))
            }
            Err(_) if !status.is_success() => Answer::Error(format!("the server answered {}", status.as_u16())),
            Err(message) => Answer::Error(message),
        }
    }
}

fn read(body: &Value) -> Answer {
    let result = &body["data"]["result"];
    match body["data"]["resultType"].as_str() {
        Some("vector") => {
            let samples = result.as_array().into_iter().flatten().take(MAX_VALUES);
            let values: Vec<f64> = samples.filter_map(|sample| number(&sample["value"][1])).collect();
            if values.is_empty() {
                return Answer::NoData("the query returned no sample".to_owned());
            }
            Answer::Numbers(values)
        }
        Some("scalar") => match number(&result[1]) {
            Some(value) => Answer::Numbers(vec![value]),
            None => Answer::NoData("the query returned no number".to_owned()),
        },
        Some(other) => Answer::Error(format!("the query returned a {other}; an instant vector or a scalar is needed")),
        None => Answer::Error("the answer is not Prometheus'".to_owned()),
    }
}
