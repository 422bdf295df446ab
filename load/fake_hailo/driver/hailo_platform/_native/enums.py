"""The binding's enumerations, as far as callers of the asynchronous API meet them."""

from __future__ import annotations

from enum import IntEnum

_LARGEST = 0x7FFFFFFF


class HailoSchedulingAlgorithm(IntEnum):
    """Who decides which network runs: the caller by activating it, or the library."""

    NONE = 0
    ROUND_ROBIN = 1


class FormatType(IntEnum):
    """How an element of a buffer is stored on the host's side."""

    AUTO = 0
    UINT8 = 1
    UINT16 = 2
    FLOAT32 = 3


class FormatOrder(IntEnum):
    """How the elements of a frame follow each other in a buffer."""

    AUTO = 0
    NHWC = 1
    NHCW = 2
    FCR = 3
    F8CR = 4
    NHW = 5
    NC = 6
    BAYER_RGB = 7
    RGB888 = 10
    NCHW = 11
    YUY2 = 12
    NV12 = 13
    NV21 = 14
    YYUV = 15
    YYVU = 16
    RGB4 = 17
    I420 = 18
    YYYYUV = 19
    HAILO_NMS_WITH_BYTE_MASK = 20
    HAILO_NMS_ON_CHIP = 21
    HAILO_NMS_BY_CLASS = 22
    HAILO_NMS_BY_SCORE = 23


class HailoFormatFlags(IntEnum):
    """Modifiers of a format."""

    NONE = 0
    TRANSPOSED = 2


class HailoStreamInterface(IntEnum):
    """What the device is connected by."""

    PCIe = 0
    ETH = 1
    MIPI = 2
    INTEGRATED = 3


class HailoStreamDirection(IntEnum):
    """Host to device, or back."""

    H2D = 0
    D2H = 1


class HailoPowerMode(IntEnum):
    """How much power a network may take."""

    PERFORMANCE = 0
    ULTRA_PERFORMANCE = 1


class HailoCpuId(IntEnum):
    """The device's own processors."""

    CPU0 = 0
    CPU1 = 1


class DvmTypes(IntEnum):
    """Where on the board power is measured."""

    VDD_CORE = 0
    VDD_IO = 1
    MIPI_AVDD = 2
    MIPI_AVDD_H = 3
    USB_AVDD_IO = 4
    VDD_TOP = 5
    USB_AVDD_IO_HV = 6
    AVDD_H = 7
    SDIO_VDD_IO = 8
    OVERCURRENT_PROTECTION = 9
    AUTO = _LARGEST


class PowerMeasurementTypes(IntEnum):
    """What is measured there."""

    SHUNT_VOLTAGE = 0
    BUS_VOLTAGE = 1
    POWER = 2
    CURRENT = 3
    AUTO = _LARGEST


class SamplingPeriod(IntEnum):
    """How often the power sensor samples."""

    PERIOD_140us = 0
    PERIOD_204us = 1
    PERIOD_332us = 2
    PERIOD_588us = 3
    PERIOD_1100us = 4
    PERIOD_2116us = 5
    PERIOD_4156us = 6
    PERIOD_8244us = 7


class AveragingFactor(IntEnum):
    """How many samples the power sensor averages."""

    AVERAGE_1 = 0
    AVERAGE_4 = 1
    AVERAGE_16 = 2
    AVERAGE_64 = 3
    AVERAGE_128 = 4
    AVERAGE_256 = 5
    AVERAGE_512 = 6
    AVERAGE_1024 = 7


class MeasurementBufferIndex(IntEnum):
    """Where the firmware keeps a series of power measurements."""

    MEASUREMENT_BUFFER_INDEX_0 = 0
    MEASUREMENT_BUFFER_INDEX_1 = 1
    MEASUREMENT_BUFFER_INDEX_2 = 2
    MEASUREMENT_BUFFER_INDEX_3 = 3


class Endianness(IntEnum):
    """Byte order of a bus."""

    BIG_ENDIAN = 0
    LITTLE_ENDIAN = 1


class NotificationId(IntEnum):
    """What the firmware reports by itself; the fake reports the temperature and the clock."""

    ETHERNET_RX_ERROR = 0
    HEALTH_MONITOR_TEMPERATURE_ALARM = 1
    HEALTH_MONITOR_DATAFLOW_SHUTDOWN = 2
    HEALTH_MONITOR_OVERCURRENT_ALARM = 3
    HEALTH_MONITOR_LCU_ECC_CORRECTABLE_ERROR = 4
    HEALTH_MONITOR_LCU_ECC_UNCORRECTABLE_ERROR = 5
    HEALTH_MONITOR_CPU_ECC_ERROR = 6
    HEALTH_MONITOR_CPU_ECC_FATAL = 7
    DEBUG = 8
    CONTEXT_SWITCH_BREAKPOINT_REACHED = 9
    HEALTH_MONITOR_CLOCK_CHANGED_EVENT = 10


class DeviceArchitectureTypes(IntEnum):
    """The chips of the family."""

    HAILO8_A0 = 0
    HAILO8 = 1
    HAILO8L = 2
    HAILO15H = 3
    HAILO15L = 4
    HAILO15M = 5
    HAILO10H = 6

    def __str__(self) -> str:
        """The bare name, as the vendor prints it."""
        return self.name
