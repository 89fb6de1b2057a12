// As much of the ESP32's Arduino as the sketch uses, to check its syntax and types. Nothing runs.
#pragma once
#include <cstdint>
#include <string>

class String {
 public:
  String(const char* text = "");
  String operator+(const char* text) const;
  bool startsWith(const char* text) const;
  const char* c_str() const;
  long toInt() const;
};
struct SerialShim {
  void begin(unsigned long baud);
  void println(const char* text);
};
extern SerialShim Serial;
struct EspShim {
  uint32_t getFreeHeap();
};
extern EspShim ESP;
uint32_t esp_random();
float temperatureRead();
unsigned long millis();
void delay(uint32_t ms);
void configTime(long gmt_offset_s, int daylight_offset_s, const char* server);
