"""`Device.control`: identity, temperature, power, resets, notifications."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._native import thermal
from .._native.board import Board, Notification
from .._native.enums import (
    AveragingFactor,
    DeviceArchitectureTypes,
    DvmTypes,
    MeasurementBufferIndex,
    NotificationId,
    PowerMeasurementTypes,
    SamplingPeriod,
)
from .._native.statuses import Status, failed
from ._errors import ExceptionWrapper, HailoRTInvalidOperationException

_VOLT = 3.3
_SENSORS_APART_C = 0.4


@dataclass(frozen=True)
class HailoFirmwareVersion:
    """A version of the firmware."""

    major: int
    minor: int
    revision: int

    def __str__(self) -> str:
        """As the vendor's tools print it."""
        return f"{self.major}.{self.minor}.{self.revision} (release,app)"


@dataclass(frozen=True)
class BoardInformation:
    """Who the device is."""

    protocol_version: int
    firmware_version: HailoFirmwareVersion
    logger_version: int
    board_name: str
    is_release: bool
    device_architecture: DeviceArchitectureTypes
    serial_number: str
    part_number: str
    product_name: str


@dataclass(frozen=True)
class TemperatureInfo:
    """Two sensors, in degrees Celsius, and a running 16-bit counter."""

    ts0_temperature: float
    ts1_temperature: float
    sample_count: int


@dataclass(frozen=True)
class SupportedFeatures:
    """What the board can do."""

    ethernet: bool
    pcie: bool
    current_monitoring: bool
    mdio: bool
    power_measurement: bool


@dataclass(frozen=True)
class ExtendedDeviceInformation:
    """More of who the device is; the clock, in Hz, is the nominal one."""

    neural_network_core_clock_rate: int
    supported_features: SupportedFeatures
    boot_source: int
    lcs: int
    soc_id: bytes
    eth_mac_address: bytes
    unit_level_tracking_id: bytes
    soc_pm_values: bytes
    gpio_mask: int


@dataclass(frozen=True)
class TemperatureThrottlingLevel:
    """A step of the throttling table; the clock in Hz."""

    level_number: int
    temperature_threshold: float
    hysteresis_temperature_threshold: float
    throttling_nn_clock_freq: int


@dataclass(frozen=True)
class HealthInformation:
    """What the protections do: `..._active` means switched on; level -1 means not throttled."""

    overcurrent_protection_active: bool
    current_overcurrent_zone: int
    red_overcurrent_threshold: float
    overcurrent_throttling_active: bool
    temperature_throttling_active: bool
    current_temperature_zone: int
    current_temperature_throttling_level: int
    temperature_throttling_levels: list[TemperatureThrottlingLevel]
    orange_temperature_threshold: int
    orange_hysteresis_temperature_threshold: int
    red_temperature_threshold: int
    red_hysteresis_temperature_threshold: int
    requested_overcurrent_clock_freq: int
    requested_temperature_clock_freq: int


@dataclass(frozen=True)
class PowerMeasurementData:
    """A series of power measurements."""

    average_value: float
    average_time_value_milliseconds: float
    min_value: float
    max_value: float
    total_number_of_samples: int


class Control:
    """The control API, as far as it is there in both lines of the library."""

    def __init__(self, device: Board) -> None:
        self.__device = device
        self._series_began: float | None = None
        self._identify_info = self.identify()

    @property
    def _device(self) -> Board:
        if not self.__device.is_open:
            raise HailoRTInvalidOperationException("The device in use has been released")
        return self.__device

    @property
    def device_id(self) -> str:
        """The PCI address."""
        return self._device.device_id

    def identify(self) -> BoardInformation:
        """Who the device is."""
        with ExceptionWrapper():
            major, minor, revision = self._device.orders().firmware_version.split(".")[:3]
            board, part, product = self._device.names
            return BoardInformation(
                protocol_version=2,
                firmware_version=HailoFirmwareVersion(int(major), int(minor), int(revision)),
                logger_version=0,
                board_name=board,
                is_release=True,
                device_architecture=self._device.architecture,
                serial_number="HLLWM2B000000042",
                part_number=part,
                product_name=product,
            )

    def get_chip_temperature(self) -> TemperatureInfo:
        """Both sensors."""
        with ExceptionWrapper():
            celsius = self._device.heat().temperature_c
            samples = int(time.monotonic() * 10) & 0xFFFF
            return TemperatureInfo(celsius, celsius - _SENSORS_APART_C, samples)

    def get_extended_device_information(self) -> ExtendedDeviceInformation:
        """Clock, features, numbers."""
        with ExceptionWrapper():
            sensor = self._device.orders().power_sensor
            features = SupportedFeatures(
                ethernet=False,
                pcie=True,
                current_monitoring=sensor,
                mdio=False,
                power_measurement=sensor,
            )
            return ExtendedDeviceInformation(
                neural_network_core_clock_rate=thermal.NOMINAL_HZ,
                supported_features=features,
                boot_source=0,
                lcs=3,
                soc_id=b"\x42" * 32,
                eth_mac_address=bytes(6),
                unit_level_tracking_id=bytes(12),
                soc_pm_values=bytes(24),
                gpio_mask=0,
            )

    def get_throttling_state(self) -> bool:
        """Whether the protections are switched on; not whether one is at work."""
        with ExceptionWrapper():
            self._device.orders()
            return self._device.folder.is_protected

    def set_throttling_state(self, should_activate: bool) -> None:
        """Switch the protections on or off."""
        with ExceptionWrapper():
            self._device.orders()
            self._device.folder.protect(should_activate)

    def _get_health_information(self) -> HealthInformation:
        with ExceptionWrapper():
            heat, is_on = self._device.heat(), self._device.folder.is_protected
            levels = [
                TemperatureThrottlingLevel(n, level.threshold_c, level.hysteresis_c, level.clock_hz)
                for n, level in enumerate(thermal.LEVELS)
            ]
            return HealthInformation(
                overcurrent_protection_active=is_on,
                current_overcurrent_zone=0,
                red_overcurrent_threshold=0.0,
                overcurrent_throttling_active=is_on,
                temperature_throttling_active=is_on,
                current_temperature_zone=heat.zone,
                current_temperature_throttling_level=heat.level,
                temperature_throttling_levels=levels if is_on else [],
                orange_temperature_threshold=int(thermal.ORANGE_C),
                orange_hysteresis_temperature_threshold=int(thermal.ORANGE_HYSTERESIS_C),
                red_temperature_threshold=int(thermal.RED_C),
                red_hysteresis_temperature_threshold=int(thermal.RED_HYSTERESIS_C),
                requested_overcurrent_clock_freq=thermal.NOMINAL_HZ,
                requested_temperature_clock_freq=heat.clock_hz,
            )

    def power_measurement(
        self,
        dvm: DvmTypes = DvmTypes.AUTO,
        measurement_type: PowerMeasurementTypes = PowerMeasurementTypes.AUTO,
    ) -> float:
        """One measurement: W, or mA for the current, or mV."""
        with ExceptionWrapper():
            watts = self._device.power_w()
            if measurement_type == PowerMeasurementTypes.CURRENT:
                return watts / _VOLT * 1000
            if measurement_type == PowerMeasurementTypes.BUS_VOLTAGE:
                return _VOLT * 1000
            if measurement_type == PowerMeasurementTypes.SHUNT_VOLTAGE:
                return watts / _VOLT
            return watts

    def set_power_measurement(
        self,
        buffer_index: MeasurementBufferIndex = MeasurementBufferIndex.MEASUREMENT_BUFFER_INDEX_0,
        dvm: DvmTypes = DvmTypes.AUTO,
        measurement_type: PowerMeasurementTypes = PowerMeasurementTypes.AUTO,
    ) -> None:
        """Choose what a series measures; the fake measures power."""
        with ExceptionWrapper():
            self._device.power_w()

    def start_power_measurement(
        self,
        averaging_factor: AveragingFactor = AveragingFactor.AVERAGE_256,
        sampling_period: SamplingPeriod = SamplingPeriod.PERIOD_1100us,
    ) -> None:
        """Begin a series."""
        with ExceptionWrapper():
            self._device.power_w()
            self._series_began = time.monotonic()

    def stop_power_measurement(self) -> None:
        """End a series."""
        self._series_began = None

    def get_power_measurement(
        self,
        buffer_index: MeasurementBufferIndex = MeasurementBufferIndex.MEASUREMENT_BUFFER_INDEX_0,
        should_clear: bool = True,
    ) -> PowerMeasurementData:
        """The series so far; the fake repeats the present value."""
        with ExceptionWrapper():
            watts = self._device.power_w()
            if self._series_began is None:
                raise failed(Status.INVALID_OPERATION)
            samples = int((time.monotonic() - self._series_began) / 0.0022)
            return PowerMeasurementData(watts, 2.2, watts, watts, samples)

    def chip_reset(self) -> None:
        """Reset the chip; whatever runs on it fails."""
        with ExceptionWrapper():
            self._device.reset()

    def set_notification_callback(
        self, callback_func: Callable[..., None], notification_id: NotificationId, opaque: Any
    ) -> None:
        """Call `callback_func(device, notification, opaque)` on another thread.

        It must not raise: that ends the process.
        """

        def call(notification: Notification) -> None:
            callback_func(self.__device, notification, opaque)

        with ExceptionWrapper():
            self._device.watch(notification_id, call)

    def remove_notification_callback(self, notification_id: NotificationId) -> None:
        """Call no more."""
        with ExceptionWrapper():
            self._device.stop_watching(notification_id)


class Control4(Control):
    """The control API of 4.x, which also reaches the buses on the board."""

    def i2c_write(self, slave: Any, register_address: int, data: bytes) -> None:
        """Not in the fake."""
        raise NotImplementedError("the fake device has no I2C")

    def i2c_read(self, slave: Any, register_address: int, data_length: int) -> bytes:
        """Not in the fake."""
        raise NotImplementedError("the fake device has no I2C")
