// An ESP32 that measures and sends; settings in config.h. What is yours to change is readSensors.
#include <HTTPClient.h>
#include <WiFi.h>
#include <WiFiClientSecure.h>
#include <sys/time.h>
#include <time.h>

#include "config.h"
#include "iotflow_device.hpp"

class WiFiTransport : public iotflow::Transport {
 public:
  iotflow::Reply send(const char* method, const std::string& path, const std::string& body,
                      const std::string& if_none_match) override {
    iotflow::Reply reply;
    HTTPClient http;
    http.setTimeout(10000);
    http.setConnectTimeout(10000);
    const String url = String(IOTFLOW_URL) + path.c_str();
    const bool begun = url.startsWith("https:") ? http.begin(secured(), url) : http.begin(plain_, url);
    if (!begun) return reply;
    const char* wanted[] = {"Retry-After", "ETag"};
    http.collectHeaders(wanted, 2);
    http.addHeader("X-API-Key", IOTFLOW_API_KEY);
    if (!body.empty()) http.addHeader("Content-Type", "application/json");
    if (!if_none_match.empty()) http.addHeader("If-None-Match", if_none_match.c_str());
    const int status = http.sendRequest(method, String(body.c_str()));
    if (status > 0) {  // negative: the library's own error numbers
      reply.status = status;
      reply.etag = http.header("ETag").c_str();
      if (http.hasHeader("Retry-After")) reply.retry_after_s = http.header("Retry-After").toInt();
      reply.body = http.getString().c_str();
    }
    http.end();
    return reply;
  }

 private:
  WiFiClientSecure& secured() {
    secure_.setCACert(IOTFLOW_CA);
    return secure_;
  }
  WiFiClient plain_;
  WiFiClientSecure secure_;
};

static WiFiTransport wifiTransport;
static void onConfig(const std::string& answer) {
  // The answer is {"version": ..., "config": {...}}: read from it what your device knows.
  Serial.println(answer.c_str());
}
static iotflow::Device<200> device(wifiTransport, esp_random, onConfig);
static uint32_t lastReading = 0;

static iotflow::Reading readSensors() {
  iotflow::Reading reading;
  reading.add("chip_temperature", static_cast<double>(temperatureRead()), "C");
  reading.add_integer("free_heap", ESP.getFreeHeap(), "B");
  return reading;
}

static int64_t epochMs() {
  struct timeval now;
  gettimeofday(&now, nullptr);
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_usec / 1000;
}

void setup() {
  Serial.begin(115200);
  WiFi.mode(WIFI_STA);
  WiFi.setAutoReconnect(true);
  WiFi.begin(WIFI_SSID, WIFI_PASSWORD);
  configTime(0, 0, "pool.ntp.org");  // UTC; goes on setting the clock in the background
}

void loop() {
  const uint32_t now = millis();
  // Without a clock a reading has no moment, and could not be sent twice without harm.
  const bool clockIsSet = epochMs() > 1704067200000LL;  // 2024
  if (clockIsSet && now - lastReading >= INTERVAL_MS) {
    lastReading = now;
    device.measure(epochMs(), readSensors());
  }
  if (WiFi.status() == WL_CONNECTED) device.poll(now);
  delay(10);
}
